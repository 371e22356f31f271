//! Caches in `/api/v1/status`.

use serde::Serialize;

use crate::snapshot::{KeptCache, KeptDisk, Snapshot};

#[derive(Debug, Serialize)]
pub struct CacheStatus {
    name: String,
    /// In memory.
    entries: usize,
    bytes: u64,
    /// Bytes it may take.
    memory: u64,
    /// Of those that have one.
    disk: Option<DiskStatus>,
}

#[derive(Debug, Serialize)]
struct DiskStatus {
    path: String,
    /// `ok`, `scanning` while what earlier processes left is being counted, `failing` while the cache goes on without it.
    state: &'static str,
    entries: u64,
    bytes: u64,
    /// Bytes it may take.
    size: u64,
}

pub fn of(snapshot: &Snapshot) -> Vec<CacheStatus> {
    snapshot.caches.iter().map(cache).collect()
}

fn cache(kept: &KeptCache) -> CacheStatus {
    let store = &kept.cache.store;
    CacheStatus {
        name: kept.cache.name.to_string(),
        entries: store.len(),
        bytes: store.bytes(),
        memory: kept.memory,
        disk: kept.disk.as_ref().map(disk),
    }
}

fn disk(kept: &KeptDisk) -> DiskStatus {
    let report = kept.disk.report();
    DiskStatus {
        path: report.path.display().to_string(),
        state: match (report.works, report.scanned) {
            (false, _) => "failing",
            (true, false) => "scanning",
            (true, true) => "ok",
        },
        entries: report.entries,
        bytes: report.bytes,
        size: report.size,
    }
}
