//! A world that nobody serves, for those who want to know what it would do.

use std::sync::Arc;

use super::build::World;
use super::sources::Sources;
use crate::config::plan::Plan;
use crate::snapshot::Snapshot;
use crate::snapshot::current::Current;

/// What `plan` describes, and where its listeners would be. Opens no listening socket, no folder of a cache (somebody who
/// runs may have it), and checks nobody's health; names and sources are asked as at a start, for five seconds at most.
pub fn world(plan: &Plan) -> Result<(Current, Vec<super::status::Place>), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    let snapshot = runtime.block_on(async {
        let found = Sources::default().prepare(plan).await;
        let world = World::new(plan.server.workers)?;
        let mut plan = plan.clone();
        plan.caches.iter_mut().for_each(|cache| cache.disk = None);
        world.build(&plan, &found, &Snapshot::default())
    });
    let (_, snapshot) = snapshot?;
    let current = Current::default();
    current.publish(snapshot);
    let places = plan.listeners.iter().flat_map(|listener| {
        let name: Arc<str> = listener.name.clone();
        listener.bind.iter().map(move |addr| (name.clone(), addr.to_string()))
    });
    Ok((current, places.collect()))
}
