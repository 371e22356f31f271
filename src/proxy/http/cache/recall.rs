//! What memory does not have is looked for behind it, once for all who ask for the same.

use std::sync::Arc;

use http::Method;
use tokio::time::Instant;

use super::{Asked, Step, judge};
use crate::cache::fill::{Joined, Outcome};
use crate::cache::recall::Asking;
use crate::cache::store::Found;
use crate::proxy::http::request::Work;
use crate::proxy::http::{Response, Scope};
use crate::proxy::record::Record;
use crate::snapshot::Cached;

/// Which variant is asked for is known when one has read by what they vary: the others then look for theirs.
const MAX_JOINS: u32 = 3;

/// The answer of what is stored, wherever that is, or what is to be done.
pub async fn find(
    scope: &Scope<'_>,
    work: &Work<'_>,
    cached: &Arc<Cached>,
    asked: &mut Asked,
    stale: bool,
    record: &mut Record,
) -> Result<Response, Step> {
    let cache = &cached.cache;
    asked.recalled = true;
    let asking = Asking {
        fetches: asked.request.method != Method::HEAD && !asked.cc.only_if_cached,
        stale,
    };
    let mut found = Found::Nothing;
    for _ in 0..MAX_JOINS {
        let key = asked.key.clone();
        let (entry, leads) = match cache.recalls.join(&key, cache.store.under_way()) {
            Joined::Lead(lead, _) => {
                // Another may have read it between the look and this.
                found = cache.find(&mut asked.key, &asked.request.fields, cache.clock(Instant::now()));
                if !stale && matches!(found, Found::Entry(..)) {
                    break;
                }
                let (cached, key, fields) = (cached.clone(), key.clone(), asked.request.fields.clone());
                // It goes on for others when this one leaves.
                let reading = tokio::task::spawn_local(async move {
                    let cache = &cached.cache;
                    cache.recall(key, &fields, asking, lead).await
                });
                (reading.await.ok().flatten(), true)
            }
            Joined::Follow(seat) => match std::future::poll_fn(|cx| seat.poll_outcome(cx)).await {
                Outcome::Done(entry) => (Some(entry), false),
                _ => (None, false),
            },
        };
        let now = cache.clock(Instant::now());
        found = cache.find(&mut asked.key, &asked.request.fields, now);
        // Memory may have had no room for it, or something older that is stale.
        if let Some(entry) = entry {
            let newer = match &found {
                Found::Entry(own, _) => own.meta.freshness.born < entry.meta.freshness.born,
                _ => true,
            };
            if newer {
                found = cache.store.vet(entry);
            }
        }
        if leads || asked.key.text == key.text || matches!(found, Found::Entry(..) | Found::Pass) {
            break;
        }
    }
    judge(scope, work, cached, asked, found, Instant::now(), record)
}
