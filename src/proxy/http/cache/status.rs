//! Cache-Status (RFC 9211): what the cache did with a request, told on every response.

use std::io::Write;

use crate::cache::reason::Reason;
use crate::fields::Fields;
use crate::telemetry::series::CacheResult;

/// What the cache did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    pub result: CacheResult,
    /// Why it was forwarded (`fwd`); `None`: it was not.
    pub forwarded: Option<&'static str>,
    /// The status that came back.
    pub status: Option<u16>,
    pub stored: bool,
    pub collapsed: bool,
    /// Seconds it stays fresh; below 0: it is stale.
    pub ttl: Option<i64>,
    pub detail: Option<Reason>,
}

impl Told {
    pub fn hit(ttl: i64) -> Self {
        Self {
            result: CacheResult::Hit,
            forwarded: None,
            status: None,
            stored: false,
            collapsed: false,
            ttl: Some(ttl),
            detail: None,
        }
    }

    pub fn forwarded(result: CacheResult, why: &'static str, detail: Option<Reason>) -> Self {
        Self {
            result,
            forwarded: Some(why),
            status: None,
            stored: false,
            collapsed: false,
            ttl: None,
            detail,
        }
    }

    /// Adds the field, as one more member where caches before this one have told theirs.
    pub fn tell(&self, fields: &mut Fields) {
        let mut room = [0; 160];
        let mut rest = &mut room[..];
        // There is room for the longest.
        let _ = self.write(&mut rest);
        let left = rest.len();
        fields.append_text("cache-status", room.get(..room.len() - left).unwrap_or_default());
    }

    fn write(&self, out: &mut &mut [u8]) -> std::io::Result<()> {
        out.write_all(b"evenkeel")?;
        match self.forwarded {
            None => out.write_all(b"; hit")?,
            Some(why) => {
                out.write_all(b"; fwd=")?;
                out.write_all(why.as_bytes())?;
            }
        }
        if let Some(status) = self.status {
            out.write_all(b"; fwd-status=")?;
            out.write_all(itoa::Buffer::new().format(status).as_bytes())?;
        }
        if let Some(ttl) = self.ttl {
            out.write_all(b"; ttl=")?;
            out.write_all(itoa::Buffer::new().format(ttl).as_bytes())?;
        }
        if self.stored {
            out.write_all(b"; stored")?;
        }
        if self.collapsed {
            out.write_all(b"; collapsed")?;
        }
        if let Some(detail) = self.detail {
            out.write_all(b"; detail=")?;
            out.write_all(detail.label().as_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(told: Told) -> String {
        let mut fields = Fields::default();
        told.tell(&mut fields);
        let (name, value) = fields.iter().next().unwrap();
        format!("{}: {}", name.escape_ascii(), value.escape_ascii())
    }

    #[test]
    fn everything_there_is_to_tell() {
        assert_eq!(text(Told::hit(30)), "cache-status: evenkeel; hit; ttl=30");
        let longest = Told {
            status: Some(200),
            stored: true,
            collapsed: true,
            ttl: Some(i64::MIN),
            ..Told::forwarded(CacheResult::Miss, "vary-miss", Some(Reason::WhileRevalidate))
        };
        assert_eq!(
            text(longest),
            format!(
                "cache-status: evenkeel; fwd=vary-miss; fwd-status=200; ttl={}; stored; collapsed; \
                 detail=stale-while-revalidate",
                i64::MIN
            )
        );
    }
}
