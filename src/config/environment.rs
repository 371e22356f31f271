//! The world a configuration is read in: environment variables, the time, the right to bind low ports.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

type Variables = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What loading looks at besides files; passed in, so that tests need not change the process.
pub struct Environment {
    variables: Variables,
    /// Seconds since 1970, to see whether a certificate has expired.
    pub now: i64,
    pub privilege: Privilege,
}

/// Which ports may be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Privilege {
    /// Ports below this need a right the process does not have. 0: it may bind all of them.
    pub first_free_port: u16,
}

/// Bit of CAP_NET_BIND_SERVICE (capabilities(7), linux/capability.h).
const NET_BIND_SERVICE: u32 = 10;

impl Environment {
    pub fn new(
        variables: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
        now: i64,
        privilege: Privilege,
    ) -> Self {
        Self {
            variables: Box::new(variables),
            now,
            privilege,
        }
    }

    /// This process's.
    pub fn of_process() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::new(
            |name| std::env::var(name).ok(),
            i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
            Privilege::of_process(),
        )
    }

    pub fn variable(&self, name: &str) -> Option<String> {
        (self.variables)(name)
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("now", &self.now)
            .field("privilege", &self.privilege)
            .finish_non_exhaustive()
    }
}

impl Privilege {
    /// Every port may be bound.
    pub const ALL: Self = Self { first_free_port: 0 };

    /// From `/proc/self/status` and `net.ipv4.ip_unprivileged_port_start` (ip-sysctl). A process that was handed its
    /// sockets by systemd (`LISTEN_FDS`) needs no right of its own.
    pub fn of_process() -> Self {
        if std::env::var_os("LISTEN_FDS").is_some() {
            return Self::ALL;
        }
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self::of(
            rustix::process::geteuid().is_root(),
            &read("/proc/self/status"),
            &read("/proc/sys/net/ipv4/ip_unprivileged_port_start"),
        )
    }

    /// `status` and `port_start` are the texts of the two files; where one says nothing, Linux's default holds.
    pub fn of(is_root: bool, status: &str, port_start: &str) -> Self {
        let capabilities = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
        let may_bind = match capabilities {
            Some(set) => set >> NET_BIND_SERVICE & 1 == 1,
            None => is_root,
        };
        Self {
            first_free_port: match may_bind {
                true => 0,
                false => port_start.trim().parse().unwrap_or(1024),
            },
        }
    }

    pub fn may_bind(self, port: u16) -> bool {
        port == 0 || port >= self.first_free_port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_right_to_bind() {
        let with = "Name:\tx\nCapEff:\t0000000000000400\n";
        let without = "CapEff:\t00000000a80421fb\n".replace("21fb", "01fb");
        for (is_root, status, start, first) in [
            (false, with, "1024\n", 0),
            (false, without.as_str(), "1024\n", 1024),
            (false, without.as_str(), "80\n", 80),
            (false, without.as_str(), "0\n", 0),
            // Root in a container that dropped the capability.
            (true, without.as_str(), "1024\n", 1024),
            (true, "", "", 0),
            (false, "", "", 1024),
        ] {
            assert_eq!(Privilege::of(is_root, status, start).first_free_port, first);
        }
    }

    #[test]
    fn port_0_is_free_for_everyone() {
        let privilege = Privilege { first_free_port: 1024 };
        assert!(privilege.may_bind(0) && privilege.may_bind(1024) && !privilege.may_bind(1023));
    }
}
