//! A host name watched: all its addresses.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::dns::{Failure, Resolver};
use super::feed::{self, Feed, Report};
use super::{Answer, jittered, repeat};
use crate::base::rng::Rng;

/// Which addresses of a name are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Families {
    /// Both, as far as this machine has a route.
    Any,
    V4,
    V6,
}

/// How a name is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Question {
    pub host: String,
    /// Empty: those of this machine.
    pub name_servers: Vec<SocketAddr>,
    pub families: Families,
}

/// Asks at once and from then on until the feed is dropped, at least every `longest`; `doubt`: ask soon.
pub fn watch(
    resolver: Arc<Resolver>,
    question: &Question,
    longest: Duration,
    doubt: Arc<Notify>,
    changed: Arc<Notify>,
    known: Option<Arc<Answer<IpAddr>>>,
) -> Feed<Answer<IpAddr>> {
    let report = Report::new("dns", question.host.clone());
    let (host, families) = (question.host.clone(), question.families);
    feed::start(report, changed, known, move |teller| async move {
        let mut rng = Rng::from_entropy();
        let ask = |known| ask(&resolver, &host, families, known);
        repeat::run(&teller, longest, &doubt, ask, |wait| jittered(wait, &mut rng)).await;
    })
}

async fn ask(
    resolver: &Resolver,
    host: &str,
    families: Families,
    known: Option<Arc<Answer<IpAddr>>>,
) -> Result<(Vec<IpAddr>, Duration), Failure> {
    let mut resolved = resolver.lookup(host).await?;
    choose(&mut resolved.addrs, families, has_route);
    if resolved.addrs.is_empty() {
        return Err(Failure {
            reason: "the name has no address of the wanted family".into(),
            denied: resolved.unanswered.is_none(),
        });
    }
    let ttl = resolved.ttl;
    let known = known.as_ref().map_or(&[][..], |answer| &answer.found);
    Ok((resolved.with_unanswered(known), ttl))
}

/// Leaves out addresses of the other family, and those to which there is no way from here, unless that is all.
fn choose(addrs: &mut Vec<IpAddr>, families: Families, has_route: impl Fn(IpAddr) -> bool) {
    let is_wanted = |addr: &IpAddr| match families {
        Families::Any => has_route(*addr),
        Families::V4 => addr.is_ipv4(),
        Families::V6 => addr.is_ipv6(),
    };
    if families != Families::Any || addrs.iter().any(is_wanted) {
        addrs.retain(is_wanted);
    }
}

/// Whether this machine knows where to send packets for `addr`: no packet is sent.
fn has_route(addr: IpAddr) -> bool {
    let any: IpAddr = match addr {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0)).is_ok_and(|socket| socket.connect((addr, 9)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|a| a.parse().unwrap()).collect()
    }

    #[test]
    fn addresses_without_a_way_are_left_out_unless_there_are_no_others() {
        let of = |list: &[&str], families| {
            let mut addrs = addrs(list);
            choose(&mut addrs, families, |addr| addr.is_ipv4());
            addrs
        };
        let both = ["10.0.0.1", "2001:db8::1"];
        assert_eq!(of(&both, Families::Any), addrs(&both[..1]));
        assert_eq!(of(&both[1..], Families::Any), addrs(&both[1..]));
        assert_eq!(of(&both, Families::V4), addrs(&both[..1]));
        assert_eq!(of(&both, Families::V6), addrs(&both[1..]));
        assert_eq!(of(&both[..1], Families::V6), addrs(&[]));
        assert!(has_route("127.0.0.1".parse().unwrap()));
    }

    #[tokio::test]
    async fn watches_a_real_name_and_ends_with_its_feed() {
        let hosts = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(hosts.path(), "127.0.0.7 api.example\n").unwrap();
        let resolver = Arc::new(Resolver::with_name_servers(&[], hosts.path().into()));
        let question = Question {
            host: "api.example".into(),
            name_servers: Vec::new(),
            families: Families::Any,
        };
        let held = Arc::downgrade(&resolver);
        let feed = watch(
            resolver,
            &question,
            Duration::from_secs(30),
            Arc::default(),
            Arc::default(),
            None,
        );
        feed.answered().await;
        assert_eq!(feed.latest().unwrap().found, addrs(&["127.0.0.7"]));
        drop(feed);
        while held.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
