//! Sticky sessions: a signed cookie that binds a client to an endpoint.
//!
//! The proxy remembers nothing of its clients: what a cookie says is enough, so that clients stay where they are through
//! reloads and restarts, and before any instance that has the same secret.

mod token;

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

pub use self::token::Key;
use self::token::Token;
use crate::base::hash;
use crate::endpoint::duty::Duty;
use crate::endpoint::{Health, State};

/// Of cookies with the name so many are looked at: browsers send one for each path and domain it was set for.
const MOST_COOKIES: usize = 4;

/// `sticky = { … }` as validated.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The cookie's name.
    pub cookie: String,
    /// The first one signs, all of them are accepted. At least one.
    pub keys: Vec<Key>,
    pub path: String,
    pub domain: Option<String>,
    /// `None`: until the browser ends.
    pub max_age: Option<Duration>,
    pub same_site: SameSite,
    /// `None`: when the request came by HTTPS.
    pub secure: Option<bool>,
    pub http_only: bool,
}

/// Whether browsers send the cookie with requests that other sites cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    Strict,
    Lax,
    None,
}

impl SameSite {
    pub fn label(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Lax => "Lax",
            Self::None => "None",
        }
    }
}

/// What a request's cookies say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    Nothing,
    /// There is such a cookie, and nobody who knows a secret has written it.
    Invalid,
    Expired,
    Bound(Bound),
}

/// What a request's cookies say to one upstream, and to all that read them alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub shown: Shown,
    /// [`Sticky::reader`].
    reader: u64,
}

/// A client's endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    id: u64,
    /// Half of its lifetime is over, or its secret is no longer the first.
    pub renew: bool,
}

/// What can be had of a client's endpoint now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It takes its clients' requests.
    Open,
    /// It is down, ejected or disabled.
    Closed,
    /// It is no endpoint of the upstream.
    Gone,
}

/// The sticky sessions of one upstream at work.
#[derive(Debug)]
pub struct Sticky {
    spec: Spec,
    upstream: Arc<str>,
    /// What stands behind the cookie's value, but for `Secure`.
    attributes: String,
    /// The same where the same cookies say the same: name, secrets and lifetime are.
    reader: u64,
    members: ArcSwap<Members>,
}

/// The upstream's endpoints and their numbers.
#[derive(Debug, Default)]
struct Members {
    /// By their numbers under every secret.
    states: HashMap<u64, Arc<State>>,
    /// Under the first secret, by [`State::id`].
    ids: HashMap<u32, u64>,
}

impl Sticky {
    pub fn new(spec: &Spec, upstream: &Arc<str>) -> Self {
        let mut attributes = format!("; Path={}", spec.path);
        if let Some(domain) = &spec.domain {
            // Writing to a string cannot fail.
            let _ = write!(attributes, "; Domain={domain}");
        }
        if let Some(max_age) = spec.max_age {
            let _ = write!(attributes, "; Max-Age={}", max_age.as_secs());
        }
        let _ = write!(attributes, "; SameSite={}", spec.same_site.label());
        if spec.http_only {
            attributes.push_str("; HttpOnly");
        }
        Self {
            spec: spec.clone(),
            upstream: upstream.clone(),
            attributes,
            reader: reader(spec),
            members: ArcSwap::default(),
        }
    }

    /// The cookie's name.
    pub fn cookie(&self) -> &str {
        &self.spec.cookie
    }

    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// These are the upstream's endpoints from now on.
    pub fn set_members<'a>(&self, endpoints: impl Iterator<Item = &'a Arc<State>>) {
        let mut members = Members::default();
        for endpoint in endpoints {
            for key in &self.spec.keys {
                let id = key.id(&self.upstream, &endpoint.label);
                members.states.insert(id, endpoint.clone());
                members.ids.entry(endpoint.id).or_insert(id);
            }
        }
        self.members.store(Arc::new(members));
    }

    /// As [`Self::look`], unless somebody who reads them alike has looked `before`.
    pub fn see<'a>(&self, cookies: impl Iterator<Item = (&'a [u8], &'a [u8])>, now: u32, before: Option<Seen>) -> Seen {
        before
            .filter(|seen| seen.reader == self.reader)
            .unwrap_or_else(|| Seen {
                shown: self.look(cookies, now),
                reader: self.reader,
            })
    }

    /// Looks for the cookie among a request's. `now`: seconds since 1970.
    pub fn look<'a>(&self, cookies: impl Iterator<Item = (&'a [u8], &'a [u8])>, now: u32) -> Shown {
        let name = self.spec.cookie.as_bytes();
        let own = cookies.filter(|(found, _)| *found == name).take(MOST_COOKIES);
        let mut shown = Shown::Nothing;
        for (_, value) in own {
            match self.read(value, now) {
                found @ Shown::Bound(_) => return found,
                Shown::Expired => shown = Shown::Expired,
                _ if shown == Shown::Nothing => shown = Shown::Invalid,
                _ => {}
            }
        }
        shown
    }

    fn read(&self, value: &[u8], now: u32) -> Shown {
        let mut keys = self.spec.keys.iter().enumerate();
        let Some((key, token)) = keys.find_map(|(n, key)| Some((n, key.read(value)?))) else {
            return Shown::Invalid;
        };
        // A clock that is behind makes it look younger than it is, not older.
        let age = u64::from(now.saturating_sub(token.at));
        let max_age = self.spec.max_age.map_or(u64::MAX, |max_age| max_age.as_secs());
        match age < max_age {
            true => Shown::Bound(Bound {
                id: token.id,
                renew: key > 0 || age > max_age / 2,
            }),
            false => Shown::Expired,
        }
    }

    /// The endpoint of a client, if it may have the client's request. Draining ones keep their clients, as do backups.
    pub fn endpoint(&self, bound: Bound, tried: &[u32]) -> Option<Arc<State>> {
        let members = self.members.load();
        let state = members.states.get(&bound.id)?;
        (is_open(state) && !tried.contains(&state.id)).then(|| state.clone())
    }

    pub fn place(&self, bound: Bound) -> Place {
        match self.members.load().states.get(&bound.id) {
            None => Place::Gone,
            Some(state) if is_open(state) => Place::Open,
            Some(_) => Place::Closed,
        }
    }

    /// Whether `endpoint` (its [`State::id`]) is the client's own.
    pub fn is_at(&self, bound: Bound, endpoint: u32) -> bool {
        let members = self.members.load();
        members.states.get(&bound.id).is_some_and(|state| state.id == endpoint)
    }

    /// The field that binds a client to `endpoint`. `None`: it has left the upstream.
    pub fn set_cookie(&self, endpoint: u32, now: u32, https: bool) -> Option<String> {
        let id = *self.members.load().ids.get(&endpoint)?;
        let token = self.spec.keys.first()?.write(Token { id, at: now });
        let secure = match self.spec.secure.unwrap_or(https) {
            true => "; Secure",
            false => "",
        };
        Some(format!("{}={token}{}{secure}", self.spec.cookie, self.attributes))
    }
}

/// What tells apart who would read a cookie otherwise: a hash, whose secrets are hashed by themselves.
fn reader(spec: &Spec) -> u64 {
    let lifetime = spec.max_age.map_or(u64::MAX, |max_age| max_age.as_secs());
    let ids = spec.keys.iter().map(|key| key.id("", ""));
    ids.fold(hash::stable_seeded(spec.cookie.as_bytes(), lifetime), |so_far, id| {
        hash::stable_seeded(&id.to_le_bytes(), so_far)
    })
}

/// Whether an endpoint takes requests of its clients. What is not yet known counts as up: clients do not move because
/// the proxy was restarted.
fn is_open(state: &State) -> bool {
    state.standing() != Health::Down && state.orders.duty() != Duty::Disabled
}

#[cfg(test)]
mod tests;
