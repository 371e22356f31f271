//! Host names to addresses: /etc/hosts first, then the name servers of /etc/resolv.conf.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

/// One look-up, with every name server and search domain it needs.
const DEADLINE: Duration = Duration::from_secs(5);
/// One question to one name server, so that a lost packet or a dead server does not use up the deadline.
const MAX_TRY: Duration = Duration::from_secs(2);
/// Look-ups at once; thousands of names wait for their turn.
const AT_ONCE: usize = 64;
/// More addresses of one name are ignored.
const MAX_ADDRS: usize = 256;
/// And more services: a message holds a few thousand at most.
const MAX_SERVICES: usize = 4096;
/// What the hosts file says holds until it is read again.
const HOSTS_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// The addresses of a name, as far as they are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Sorted, without duplicates, 1 to 256.
    pub addrs: Vec<IpAddr>,
    /// How long they hold from now.
    pub ttl: Duration,
    /// The question for this family failed: whether there are such addresses is not known.
    pub unanswered: Option<Family>,
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Short, for the log.
    pub reason: String,
    /// A name server says that there is none; otherwise nothing is known.
    pub denied: bool,
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self { reason, denied: false }
    }
}

impl Resolved {
    /// The addresses, with those of `known` that this answer says nothing about.
    pub fn with_unanswered(self, known: &[IpAddr]) -> Vec<IpAddr> {
        let kept = known
            .iter()
            .filter(|a| self.unanswered == Some(if a.is_ipv4() { Family::V4 } else { Family::V6 }));
        tidy(self.addrs.iter().chain(kept).copied())
    }
}

/// Asks as this machine is configured to. Both files are read again when they change, as glibc does.
#[derive(Debug)]
pub struct Resolver {
    hosts: PathBuf,
    servers: Servers,
    /// Each question has a socket of its own.
    at_once: Semaphore,
}

#[derive(Debug)]
enum Servers {
    File { path: PathBuf, loaded: Mutex<Loaded> },
    Fixed(Result<TokioResolver, String>),
}

/// A resolver made of `text`.
#[derive(Debug)]
struct Loaded {
    text: Option<Vec<u8>>,
    resolver: Result<TokioResolver, String>,
}

impl Resolver {
    /// By /etc/hosts and /etc/resolv.conf. Where the latter is missing or names no server, names outside
    /// of /etc/hosts fail, until it does.
    pub fn system() -> Self {
        Self::with_files("/etc/hosts".into(), "/etc/resolv.conf".into())
    }

    /// By `hosts` and then these name servers, over UDP, and TCP for long answers.
    pub fn with_name_servers(servers: &[SocketAddr], hosts: PathBuf) -> Self {
        let servers = servers.iter().map(|addr| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut c| {
                c.port = addr.port();
                c
            });
            NameServerConfig::new(addr.ip(), true, connections.into())
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        Self {
            hosts,
            servers: Servers::Fixed(build(config, ResolverOpts::default())),
            at_once: Semaphore::new(AT_ONCE),
        }
    }

    fn with_files(hosts: PathBuf, resolv_conf: PathBuf) -> Self {
        let loaded = Loaded {
            text: None,
            resolver: Err(missing(&resolv_conf)),
        };
        Self {
            hosts,
            servers: Servers::File {
                path: resolv_conf,
                loaded: Mutex::new(loaded),
            },
            at_once: Semaphore::new(AT_ONCE),
        }
    }

    /// The IPv4 and IPv6 addresses of `host`, within 5 s of its turn. No address is an error. A name in the hosts file has
    /// the addresses that stand there and no others.
    pub async fn lookup(&self, host: &str) -> Result<Resolved, Failure> {
        let work = async {
            let hosts = tokio::fs::read(&self.hosts).await.unwrap_or_default();
            let addrs = in_hosts(&String::from_utf8_lossy(&hosts), host);
            if !addrs.is_empty() {
                return Ok(Resolved {
                    addrs,
                    ttl: HOSTS_TTL,
                    unanswered: None,
                });
            }
            // Not by the rules of IDNA, which refuse the `_` that names of containers have.
            let name = Name::from_ascii(host).map_err(|e| e.to_string())?;
            let resolver = self.resolver().await?;
            // Both at once; a name server that knows nothing of IPv6 must not hide the IPv4 addresses.
            let (v4, v6) = tokio::join!(
                resolver.lookup(name.clone(), RecordType::A),
                resolver.lookup(name, RecordType::AAAA)
            );
            combine(v4, v6)
        };
        self.in_time(work).await
    }

    /// The SRV records of `name`, within 5 s of its turn. None is an error.
    pub async fn services(&self, name: &str) -> Result<(Vec<SRV>, Duration), Failure> {
        let work = async {
            let name = Name::from_ascii(name).map_err(|e| e.to_string())?;
            let answer = self.resolver().await?.lookup(name, RecordType::SRV).await;
            services(answer)
        };
        self.in_time(work).await
    }

    /// One look-up, when it is its turn.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let _turn = self.at_once.acquire().await;
        match timeout(DEADLINE, work).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {DEADLINE:?}").into()),
        }
    }

    async fn resolver(&self) -> Result<TokioResolver, String> {
        match &self.servers {
            Servers::Fixed(resolver) => resolver.clone(),
            Servers::File { path, loaded } => {
                let text = tokio::fs::read(path).await.ok();
                let mut loaded = loaded.lock().await;
                if loaded.text != text {
                    loaded.resolver = match &text {
                        None => Err(missing(path)),
                        Some(text) => parse_resolv_conf(text)
                            .map_err(|e| format!("{}: {e}", path.display()))
                            .and_then(|(config, options)| build(config, options)),
                    };
                    loaded.text = text;
                }
                loaded.resolver.clone()
            }
        }
    }
}

fn missing(path: &Path) -> String {
    format!("{} cannot be read, so there is no name server to ask", path.display())
}

fn build(config: ResolverConfig, mut options: ResolverOpts) -> Result<TokioResolver, String> {
    if config.name_servers.is_empty() {
        return Err("there is no name server to ask".into());
    }
    // The hosts file is ours to read, and who asks keeps to the TTL.
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = 0;
    options.timeout = options.timeout.min(MAX_TRY);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build().map_err(|e| e.to_string())
}

/// The addresses `text`, in the form of hosts(5), gives to `host`.
fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let host = host.trim_end_matches('.');
    tidy(text.lines().filter_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let addr = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(addr)
    }))
}

fn combine(v4: Result<Lookup, NetError>, v6: Result<Lookup, NetError>) -> Result<Resolved, Failure> {
    let (answers, unanswered) = match (&v4, &v6) {
        // Search domains led to two different names: one name, one endpoint.
        (Ok(a), Ok(b)) if a.query().name() != b.query().name() => (vec![a], None),
        (Ok(a), Ok(b)) => (vec![a, b], None),
        (Ok(a), Err(e)) => (vec![a], (!e.is_no_records_found()).then_some(Family::V6)),
        (Err(e), Ok(b)) => (vec![b], (!e.is_no_records_found()).then_some(Family::V4)),
        (Err(a), Err(b)) => {
            return Err(Failure {
                reason: reason(if a.is_no_records_found() { b } else { a }),
                denied: a.is_no_records_found() && b.is_no_records_found(),
            });
        }
    };
    let records = || answers.iter().flat_map(|lookup| lookup.answers());
    let addrs = tidy(records().filter_map(|record| record.data.ip_addr()));
    if addrs.is_empty() {
        return Err(Failure {
            reason: "the name has no address".into(),
            denied: unanswered.is_none(),
        });
    }
    // The records on the way to the addresses (CNAME) count too.
    let ttl = records().map(|record| record.ttl).min().unwrap_or(0);
    Ok(Resolved {
        addrs,
        ttl: Duration::from_secs(ttl.into()),
        unanswered,
    })
}

fn services(answer: Result<Lookup, NetError>) -> Result<(Vec<SRV>, Duration), Failure> {
    let answer = answer.map_err(|e| Failure {
        reason: reason(&e),
        denied: e.is_no_records_found(),
    })?;
    let records = answer.answers().iter();
    let services: Vec<_> = records
        .filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(srv.clone()),
            _ => None,
        })
        .take(MAX_SERVICES)
        .collect();
    let ttl = answer.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
    Ok((services, Duration::from_secs(ttl.into())))
}

fn reason(error: &NetError) -> String {
    match error {
        _ if error.is_nx_domain() => "no such name".into(),
        _ if error.is_no_records_found() => "the name has no such records".into(),
        NetError::Timeout => "the name servers do not answer".into(),
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the name server says: {code}"),
        _ => error.to_string(),
    }
}

/// Sorted, each once, and not more than are kept.
fn tidy(addrs: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut addrs: Vec<_> = addrs.collect();
    addrs.sort_unstable();
    addrs.dedup();
    addrs.truncate(MAX_ADDRS);
    addrs
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
    use hickory_resolver::proto::rr::Record;
    use tokio::net::UdpSocket;

    use super::*;

    const NOWHERE: &str = "/nonexistent/hosts";

    /// What the name server of these tests says. `None`: nothing.
    fn zone(name: &str, kind: RecordType) -> Option<(ResponseCode, Vec<(u32, IpAddr)>)> {
        let of = |list: &[(u32, &str)]| {
            let list = list.iter().map(|(ttl, addr)| (*ttl, addr.parse::<IpAddr>().unwrap()));
            list.filter(|(_, addr)| addr.is_ipv4() == (kind == RecordType::A))
                .collect()
        };
        let found = |list| Some((ResponseCode::NoError, of(list)));
        match name {
            "both.example." => found(&[
                (60, "10.0.0.2"),
                (60, "10.0.0.1"),
                (20, "2001:db8::1"),
                (60, "10.0.0.2"),
            ]),
            "v4.example." | "my_app-1.example." => found(&[(7, "10.0.0.4")]),
            "empty.example." => found(&[]),
            "half.example." if kind == RecordType::AAAA => Some((ResponseCode::ServFail, Vec::new())),
            "half.example." => found(&[(60, "10.0.0.5")]),
            "broken.example." => Some((ResponseCode::ServFail, Vec::new())),
            "silent.example." => None,
            _ => Some((ResponseCode::NXDomain, Vec::new())),
        }
    }

    async fn name_server() -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut packet = [0; 4096];
            loop {
                let (len, from) = socket.recv_from(&mut packet).await.unwrap();
                let asked = Message::from_vec(&packet[..len]).unwrap();
                let query = asked.queries[0].clone();
                let name: Name = query.name().clone();
                let Some((code, list)) = zone(&name.to_string(), query.query_type()) else {
                    continue;
                };
                let mut answer = Message::response(asked.metadata.id, OpCode::Query);
                answer.metadata.response_code = code;
                answer.add_query(query);
                answer.add_answers(
                    list.into_iter()
                        .map(|(ttl, addr)| Record::from_rdata(name.clone(), ttl, RData::from(addr))),
                );
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        addr
    }

    fn addrs(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|a| a.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn both_families_sorted_with_the_shortest_ttl() {
        let resolver = Resolver::with_name_servers(&[name_server().await], NOWHERE.into());
        let both = resolver.lookup("both.example").await.unwrap();
        assert_eq!(both.addrs, addrs(&["10.0.0.1", "10.0.0.2", "2001:db8::1"]));
        assert_eq!((both.ttl, both.unanswered), (Duration::from_secs(20), None));
        let v4 = resolver.lookup("v4.example.").await.unwrap();
        assert_eq!((&v4.addrs, v4.unanswered), (&addrs(&["10.0.0.4"]), None));
        assert_eq!(v4.ttl, Duration::from_secs(7));
        assert_eq!(resolver.lookup("my_app-1.example").await.unwrap().addrs, v4.addrs);
    }

    #[tokio::test]
    async fn no_address_is_an_error_with_a_reason() {
        let resolver = Resolver::with_name_servers(&[name_server().await], NOWHERE.into());
        for (name, expected, denied) in [
            ("none.example", "no such name", true),
            ("empty.example", "the name has no such records", true),
            ("broken.example", "the name server says: Server Failure", false),
        ] {
            let reason = expected.to_owned();
            assert_eq!(resolver.lookup(name).await, Err(Failure { reason, denied }), "{name}");
        }
        let half = resolver.lookup("half.example").await.unwrap();
        assert_eq!((half.addrs, half.unanswered), (addrs(&["10.0.0.5"]), Some(Family::V6)));
    }

    /// The clock is paused and runs ahead as soon as nothing else is left to do.
    #[tokio::test(start_paused = true)]
    async fn silence_ends_at_the_deadline() {
        let resolver = Resolver::with_name_servers(&[name_server().await], NOWHERE.into());
        let start = tokio::time::Instant::now();
        assert!(resolver.lookup("silent.example").await.is_err());
        assert!(
            start.elapsed() <= DEADLINE + Duration::from_millis(1),
            "{:?}",
            start.elapsed()
        );
    }

    #[tokio::test]
    async fn the_hosts_file_comes_first_and_is_read_again() {
        let hosts = tempfile::NamedTempFile::new().unwrap();
        let resolver = Resolver::with_name_servers(&[name_server().await], hosts.path().into());
        let text =
            "# none\n127.0.0.1 localhost\nfe80::1%lo0 both.example\n10.9.9.9 x BOTH.example # both\n::2 both.example";
        std::fs::write(hosts.path(), text).unwrap();
        let found = resolver.lookup("both.example.").await.unwrap();
        assert_eq!(found.addrs, addrs(&["10.9.9.9", "::2"]));
        assert_eq!(resolver.lookup("localhost").await.unwrap().addrs, addrs(&["127.0.0.1"]));
        std::fs::write(hosts.path(), "").unwrap();
        assert_eq!(resolver.lookup("both.example").await.unwrap().addrs.len(), 3);
    }

    #[tokio::test]
    async fn without_name_servers_the_hosts_file_still_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (hosts, conf) = (dir.path().join("hosts"), dir.path().join("resolv.conf"));
        std::fs::write(&hosts, "10.0.0.1 here").unwrap();
        let resolver = Resolver::with_files(hosts, conf.clone());
        assert_eq!(resolver.lookup("here").await.unwrap().addrs, addrs(&["10.0.0.1"]));
        let error = resolver.lookup("elsewhere").await.unwrap_err().reason;
        assert!(error.contains("cannot be read"), "{error}");
        std::fs::write(&conf, "options ndots:2\n").unwrap();
        let error = resolver.lookup("elsewhere").await.unwrap_err().reason;
        assert!(error.contains("no nameservers"), "{error}");
        // Takes in the new file: there is a resolver now.
        std::fs::write(&conf, "nameserver 127.0.0.1\n").unwrap();
        assert!(resolver.resolver().await.is_ok());
    }

    #[tokio::test]
    async fn the_system_knows_this_machine() {
        let found = Resolver::system().lookup("localhost").await.unwrap();
        assert!(found.addrs.iter().all(IpAddr::is_loopback), "{found:?}");
    }

    #[test]
    fn addresses_are_bounded() {
        let text: String = (0..400)
            .map(|i| format!("10.0.{}.{} many\n", i / 256, i % 256))
            .collect();
        assert_eq!(in_hosts(&text, "many").len(), MAX_ADDRS);
    }
}
