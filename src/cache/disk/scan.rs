//! Finds what earlier processes left, behind the first requests.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::{Shared, Write, index};

pub fn run(shared: &Shared) {
    let begun = Instant::now();
    shared.folder.clean();
    match all(shared) {
        Ok(true) => {
            shared.index.set_complete();
            let (path, entries) = (shared.folder.path.display(), shared.index.len());
            tracing::info!(%path, entries, took = ?begun.elapsed(), "the disk of a cache was scanned");
        }
        Ok(false) => {}
        // What it has not seen is found by its key all the same; its bytes are not counted.
        Err(e) => shared.warn("cannot be scanned", &e),
    }
}

/// `true`: to the end.
fn all(shared: &Shared) -> io::Result<bool> {
    let wipes = shared.wipes.load(Relaxed);
    let is_wiped = || shared.wipes.load(Relaxed) != wipes;
    for folder in std::fs::read_dir(shared.folder.data())? {
        if is_wiped() {
            return Ok(true);
        }
        if shared.writes.is_closed() {
            return Ok(false);
        }
        let folder = folder?;
        let first = folder.file_name();
        let files = match std::fs::read_dir(folder.path()) {
            Ok(files) => files,
            // Nothing of ours.
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => continue,
            Err(_) if is_wiped() => return Ok(true),
            Err(e) => return Err(e),
        };
        for file in files {
            let file = file?;
            let name = first.to_str().zip(file.file_name().to_str().map(str::to_owned));
            let name = name.and_then(|(first, rest)| index::read_name(first, &rest));
            // It may have been removed meanwhile.
            if let (Some(name), Ok(data)) = (name, file.metadata())
                && !is_wiped()
            {
                shared.index.found(name, data.len());
            }
        }
        // Where there is more than there may be. A full line is busy with the same.
        let _ = shared.writes.push(Write::Tidy, 1);
    }
    Ok(true)
}
