//! What a cache does with the tiers behind its memory: what memory does not have is read from there, what is stored or
//! purged is told there.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::Method;
use tokio::time::Instant;

use super::Cache;
use super::entry::Entry;
use super::fill::Lead;
use super::key::Key;
use super::record::{Clocks, Kept, Record};
use super::store::Found;
use super::tier::{Purge, Settling, Tier};
use crate::fields::Fields;

/// Why tiers are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asking {
    /// Where they have nothing, the origin is asked.
    pub fetches: bool,
    /// Memory has a stale one: only who is shared may have another.
    pub stale: bool,
}

impl Cache {
    pub fn clocks(&self) -> Clocks {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Clocks {
            cache: self.clock(Instant::now()),
            wall: since.map_or(0, |since| since.as_millis() as i64),
        }
    }

    /// Reads what the tiers have for `request` into memory, and settles `lead` by it. What is returned need not be in
    /// memory: that may have no room for it.
    pub async fn recall(&self, key: Key, request: &Fields, asking: Asking, mut lead: Lead) -> Option<Arc<Entry>> {
        let mut place = key.clone();
        let found = self.ask_tiers(&mut place, request, asking).await;
        let Some(entry) = found else {
            lead.release();
            return None;
        };
        if entry.body.is_held() {
            self.store.insert(&place, entry.clone());
        }
        // A purge that came meanwhile has not seen it there.
        if !lead.is_storable() {
            self.store.purge(&place, false, 0);
            lead.release();
            return None;
        }
        match place.text == key.text {
            true => lead.done(entry.clone()),
            // Others who wait may want another variant.
            false => lead.release(),
        }
        Some(entry)
    }

    /// `key` becomes the one of what was found.
    async fn ask_tiers(&self, key: &mut Key, request: &Fields, asking: Asking) -> Option<Arc<Entry>> {
        key.restore();
        let tiers = self.tiers.list();
        for (n, tier) in tiers.iter().enumerate() {
            if asking.stale && !tier.is_shared() {
                continue;
            }
            let before = tiers.get(..n).unwrap_or_default();
            let stamp = self.store.stamp();
            let Some(mut kept) = self.ask_tier(&**tier, before, key, request, asking.fetches).await else {
                continue;
            };
            kept.stamp = stamp;
            if !before.is_empty() {
                let record = Record::Response(kept.clone());
                before.iter().for_each(|tier| tier.write(&key.text, &record));
            }
            // Without its groups it could not be purged.
            let Ok(entry) = kept.entry(stamp, &self.store.tags, self.clocks()) else {
                continue;
            };
            match self.store.vet(Arc::new(entry)) {
                Found::Entry(entry, _) => return Some(entry),
                _ => continue,
            }
        }
        None
    }

    async fn ask_tier(
        &self,
        tier: &dyn Tier,
        before: &[Arc<dyn Tier>],
        key: &mut Key,
        request: &Fields,
        fetches: bool,
    ) -> Option<Kept> {
        // What this process knows of its own tier's variants is the newest.
        let known = key.text.len() > key.primary && !tier.is_shared();
        let record = match known {
            true => tier.read(&key.text, fetches).await?,
            false => tier.read(key.primary(), fetches).await?,
        };
        let (vary, id) = match record {
            Record::Response(kept) => {
                if !known {
                    key.text.truncate(key.primary);
                }
                return Some(kept);
            }
            Record::Varies { vary, id } => (vary, id),
        };
        let varies = Record::Varies { vary: vary.clone(), id };
        before.iter().for_each(|tier| tier.write(key.primary(), &varies));
        self.store.adopt(key, &vary, id);
        self.store.place(key, &vary, request)?;
        match tier.read(&key.text, fetches).await? {
            Record::Response(kept) => Some(kept),
            Record::Varies { .. } => None,
        }
    }

    /// Stores in memory and in the tiers what was asked for at `asked`, at a key that [`Self::place`] made. `lead`: who fetched
    /// it, where purges know of that.
    pub fn keep(&self, place: &Key, entry: &Arc<Entry>, asked: i64, lead: Option<&Lead>) {
        let stored = match entry.body.is_held() {
            true => self.store.insert(place, entry.clone()),
            false => matches!(self.store.vet(entry.clone()), Found::Entry(..)),
        };
        if stored && !self.tiers.is_empty() {
            self.tell(place, entry, asked);
        }
        // A purge between the end of the fetch and this has not seen it.
        if lead.is_some_and(|lead| !lead.is_storable()) {
            self.purge(place, false, self.clock(Instant::now())).1.detach();
        }
    }

    fn tell(&self, place: &Key, entry: &Entry, asked: i64) {
        let tiers = self.tiers.list();
        if let Some(exact) = &place.exact {
            // Keys of several URLs hold within one process; what stands at this one's own is older.
            let stamp = self.store.stamp();
            let own = Purge::Url(exact.clone());
            self.tiers.purge(&own, false, stamp, false).detach();
            return;
        }
        let varies = self.store.varies(place);
        let record = Record::Response(Kept::of(entry, asked, self.clocks()));
        for tier in tiers.iter() {
            if let Some((vary, id)) = &varies {
                let varies = Record::Varies {
                    vary: vary.clone(),
                    id: *id,
                };
                tier.write(place.primary(), &varies);
            }
            tier.write(&place.text, &record);
        }
    }

    /// Forgets a URL, or makes it stale, with all that was asked of it by content. `true`: there was something.
    pub fn purge(&self, key: &Key, soft: bool, clock: i64) -> (bool, Settling) {
        let (asked, mut settling) = self.forget(&key.with_content(&Method::POST), soft, clock, false);
        let (was, rest) = self.change(key, soft, clock);
        settling.and(rest);
        (was || asked, settling)
    }

    /// The same when something has changed there. Answers to POST stay: a GraphQL server has one URL for everything, and
    /// what a mutation changes is known to who names groups.
    pub fn change(&self, key: &Key, soft: bool, clock: i64) -> (bool, Settling) {
        let (asked, mut settling) = match Method::from_bytes(b"QUERY") {
            Ok(method) => self.forget(&key.with_content(&method), soft, clock, false),
            Err(_) => (false, Settling::default()),
        };
        let (was, rest) = self.forget(key, soft, clock, false);
        settling.and(rest);
        (was || asked, settling)
    }

    /// `own`: those who share a tier know of it.
    fn forget(&self, key: &Key, soft: bool, clock: i64, own: bool) -> (bool, Settling) {
        let mut was = false;
        // First what memory is filled from.
        let settling = self.purge_tiers(|| Purge::Url(key.primary().into()), soft, own);
        for key in self.searches.same(&self.store, key).iter().chain([key]) {
            self.fills.purge(key);
            self.recalls.purge(key);
            was |= self.store.purge(key, soft, clock);
        }
        (was, settling)
    }

    /// Purges a group; tells how many entries memory had of it.
    pub fn purge_tag(&self, name: &[u8], soft: bool, clock: i64) -> (usize, Settling) {
        let settling = self.purge_tiers(|| Purge::Tag(name.into()), soft, false);
        (self.store.purge_tag(name, soft, clock), settling)
    }

    /// Purges every URL that begins with `prefix`; tells how many keys memory had of them.
    pub fn purge_prefix(&self, prefix: &[u8], soft: bool, clock: i64) -> (usize, Settling) {
        let settling = self.purge_tiers(|| Purge::Prefix(prefix.into()), soft, false);
        self.fills.purge_prefix(prefix);
        self.recalls.purge_prefix(prefix);
        (self.store.purge_prefix(prefix, soft, clock, false), settling)
    }

    /// Purges everything, and gives back at once what it took.
    pub fn purge_all(&self, soft: bool, clock: i64) -> (usize, Settling) {
        let settling = self.purge_tiers(|| Purge::All, soft, false);
        let count = self.store.purge_all(soft, clock);
        if !soft {
            self.store.clear();
        }
        (count, settling)
    }

    /// What another process that shares a tier has purged: the rest of this one follows.
    pub fn purged_elsewhere(&self, purge: &Purge, soft: bool) {
        let clock = self.clock(Instant::now());
        let settling = match purge {
            Purge::Url(text) => self.forget(&Key::of_text(text), soft, clock, true).1,
            other => {
                let settling = self.purge_tiers(|| other.clone(), soft, true);
                match other {
                    Purge::Tag(name) => drop(self.store.purge_tag(name, soft, clock)),
                    Purge::Prefix(prefix) => {
                        self.fills.purge_prefix(prefix);
                        self.recalls.purge_prefix(prefix);
                        self.store.purge_prefix(prefix, soft, clock, false);
                    }
                    _ => {
                        self.store.purge_all(soft, clock);
                        if !soft {
                            self.store.clear();
                        }
                    }
                }
                settling
            }
        };
        settling.detach();
    }

    fn purge_tiers(&self, purge: impl FnOnce() -> Purge, soft: bool, own: bool) -> Settling {
        match self.tiers.is_empty() {
            true => Settling::default(),
            // Who is asked for from now on is newer.
            false => self.tiers.purge(&purge(), soft, self.store.next_stamp(), own),
        }
    }
}
