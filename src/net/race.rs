//! Happy Eyeballs (RFC 8305): one endpoint with several addresses is connected to by whichever answers first.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::dial::{Opening, connect_tcp};
use super::stream::Stream;

/// After so long without an answer the next address is tried beside (RFC 8305 section 5).
const NEXT: Duration = Duration::from_millis(250);

/// The addresses of one name, which is what it is known by: they may change.
#[derive(Debug)]
pub struct Addrs {
    /// With its port.
    name: String,
    /// In the order in which they are tried.
    addrs: Mutex<Arc<[SocketAddr]>>,
}

impl Addrs {
    pub fn new(name: String, addrs: &[SocketAddr]) -> Self {
        Self {
            name,
            addrs: Mutex::new(in_turns(addrs).into()),
        }
    }

    pub fn get(&self) -> Arc<[SocketAddr]> {
        self.lock().clone()
    }

    /// The name has these addresses now. The one that answered last comes first, if it is still among them.
    pub fn set(&self, addrs: &[SocketAddr]) {
        let mut current = self.lock();
        let mut addrs = in_turns(addrs);
        if let Some(first) = current.first()
            && let Some(at) = addrs.iter().position(|addr| addr == first)
        {
            addrs[..=at].rotate_right(1);
        }
        *current = addrs.into();
    }

    /// The same addresses with another port.
    pub fn with_port(&self, port: u16) -> Self {
        let addrs = self.get().iter().map(|addr| SocketAddr::new(addr.ip(), port)).collect();
        Self {
            name: self.name.clone(),
            addrs: Mutex::new(addrs),
        }
    }

    /// This one answers: it comes first from now on.
    fn prefer(&self, addr: SocketAddr) {
        let mut current = self.lock();
        if current.first() != Some(&addr)
            && let Some(at) = current.iter().position(|other| *other == addr)
        {
            let mut addrs = current.to_vec();
            addrs[..=at].rotate_right(1);
            *current = addrs.into();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<[SocketAddr]>> {
        // A panic while it was held left a whole list behind: assignments cannot tear.
        self.addrs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// IPv6 and IPv4 by turns, beginning with IPv6 (RFC 8305 section 4).
fn in_turns(addrs: &[SocketAddr]) -> Vec<SocketAddr> {
    let (mut v6, mut v4) = (
        addrs.iter().filter(|addr| addr.is_ipv6()),
        addrs.iter().filter(|addr| addr.is_ipv4()),
    );
    let mut all = Vec::with_capacity(addrs.len());
    while all.len() < addrs.len() {
        all.extend(v6.next());
        all.extend(v4.next());
    }
    all
}

/// Connects to the first address that answers: one attempt after the other, the next one as soon as one fails or is
/// silent for a while. Dropping the future gives up all of them. Each attempt has a right of its own, the first `right`, those
/// beside it what `another` has for them; without one they wait until another attempt has failed.
pub async fn connect<R: Send + 'static>(
    addrs: &Addrs,
    opening: Opening,
    right: R,
    another: impl Fn() -> Option<R>,
) -> io::Result<(Stream, R)> {
    let list = addrs.get();
    let mut left = list.iter().copied().peekable();
    let mut attempts = JoinSet::new();
    let mut last = io::Error::other("the name has no address");
    let mut unused = Some(right);
    loop {
        if left.peek().is_some()
            && let Some(right) = unused.take().or_else(&another)
            && let Some(addr) = left.next()
        {
            attempts.spawn(async move { (addr, connect_tcp(addr, opening).await, right) });
        }
        tokio::select! {
            biased;
            Some(ended) = attempts.join_next() => match ended {
                Ok((addr, Ok(stream), right)) => {
                    addrs.prefer(addr);
                    return Ok((stream, right));
                }
                Ok((_, Err(e), right)) => (last, unused) = (e, Some(right)),
                Err(e) => last = io::Error::other(e),
            },
            () = sleep(NEXT), if left.peek().is_some() => {}
            else => return Err(last),
        }
    }
}

impl fmt::Display for Addrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

impl PartialEq for Addrs {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Addrs {}

impl Hash for Addrs {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl PartialOrd for Addrs {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Addrs {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.name.cmp(&other.name)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::time::{Instant, timeout};

    use super::*;

    fn addrs(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|addr| addr.parse().unwrap()).collect()
    }

    /// An address with a full backlog: its SYNs are dropped.
    async fn silent() -> ((socket2::Socket, Vec<Stream>), SocketAddr) {
        let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        full.bind(&addrs(&["127.0.0.3:0"])[0].into()).unwrap();
        full.listen(0).unwrap();
        let silent = full.local_addr().unwrap().as_socket().unwrap();
        let mut held = Vec::new();
        while let Ok(stream) = timeout(Duration::from_millis(50), connect_tcp(silent, Opening::Unknown)).await {
            held.push(stream.unwrap());
        }
        ((full, held), silent)
    }

    #[test]
    fn families_take_turns_and_what_answered_comes_first() {
        let list = addrs(&["10.0.0.1:1", "10.0.0.2:1", "[::1]:1"]);
        let all = Addrs::new("a.test:1".into(), &list);
        assert_eq!(*all.get(), addrs(&["[::1]:1", "10.0.0.1:1", "10.0.0.2:1"]));
        all.prefer(list[1]);
        assert_eq!(*all.get(), addrs(&["10.0.0.2:1", "[::1]:1", "10.0.0.1:1"]));
        all.set(&addrs(&["10.0.0.2:1", "10.0.0.3:1", "[::2]:1"]));
        assert_eq!(*all.get(), addrs(&["10.0.0.2:1", "[::2]:1", "10.0.0.3:1"]));
        all.set(&addrs(&["10.0.0.3:1"]));
        assert_eq!(*all.get(), addrs(&["10.0.0.3:1"]));
        assert_eq!(*all.with_port(9).get(), addrs(&["10.0.0.3:9"]));
    }

    #[tokio::test]
    async fn refusals_lead_to_the_next_at_once_and_silence_soon() {
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = open.local_addr().unwrap();
        let refused = addrs(&["127.0.0.2:1"])[0];
        let all = Addrs::new("a.test".into(), &[refused, addr]);
        let begun = Instant::now();
        connect(&all, Opening::Unknown, (), || Some(())).await.unwrap();
        assert!(begun.elapsed() < NEXT, "the refusal was waited for");
        assert_eq!(all.get()[0], addr, "what answered comes first");

        let (_held, silent) = silent().await;
        let all = Addrs::new("a.test".into(), &[silent, addr]);
        let begun = Instant::now();
        connect(&all, Opening::Unknown, (), || Some(())).await.unwrap();
        assert!(begun.elapsed() >= NEXT, "the first address has its time");
    }

    #[tokio::test]
    async fn when_nobody_answers_the_last_error_is_told() {
        let none = Addrs::new("a.test".into(), &[]);
        assert!(connect(&none, Opening::Unknown, (), || None).await.is_err());
        let refused = Addrs::new("a.test".into(), &addrs(&["127.0.0.2:1", "127.0.0.3:1"]));
        let error = connect(&refused, Opening::Unknown, (), || None).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn each_attempt_has_a_right_of_its_own() {
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = open.local_addr().unwrap();
        let (_held, silent) = silent().await;
        let all = || Addrs::new("a.test".into(), &[silent, addr]);
        // Without another the second address has to wait for the first to fail, which it does not.
        let alone = all();
        let begun = connect(&alone, Opening::Unknown, 1, || None);
        assert!(timeout(NEXT * 3, begun).await.is_err());
        let (_, right) = connect(&all(), Opening::Unknown, 1, || Some(2)).await.unwrap();
        assert_eq!(right, 2, "that of the attempt that won");
        let refused = Addrs::new("a.test".into(), &[addrs(&["127.0.0.2:1"])[0], addr]);
        let (_, right) = connect(&refused, Opening::Unknown, 1, || None).await.unwrap();
        assert_eq!(right, 1, "what has failed needs none any more");
    }
}
