//! The folder of a disk: whose it is, and what stands where in it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::index::{self, Name};

/// The same process may be about to let go of it.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_STEP: Duration = Duration::from_millis(10);

/// ```text
/// lock      held by the process that uses it
/// purges    the journal
/// data/xx/  files by the hash of their key
/// tmp/      files that are being written
/// trash/    what is being removed
/// ```
#[derive(Debug)]
pub struct Folder {
    pub path: PathBuf,
    data: PathBuf,
    tmp: PathBuf,
    trash: PathBuf,
    /// Counts temporary names.
    next: AtomicU64,
    cleaning: AtomicBool,
    /// Locked while it is open.
    _lock: File,
}

impl Folder {
    /// Takes the folder for this process. An error tells what to do about it.
    pub fn take(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let about = |e: io::Error, what: &str| match e.kind() {
            io::ErrorKind::NotFound => format!(
                "the folder {shown} does not exist: create it, and give it to the user this process runs as (`install -d -o \
                 USER {shown}`)"
            ),
            io::ErrorKind::PermissionDenied => format!(
                "no permission to {what} {shown}: it has to belong to the user this process runs as (`chown USER {shown}`)"
            ),
            io::ErrorKind::NotADirectory => format!("{shown} is no folder"),
            io::ErrorKind::ReadOnlyFilesystem => format!("{shown} is on a file system that is mounted read-only"),
            _ => format!("cannot {what} {shown}: {e}"),
        };
        if !std::fs::metadata(path).map_err(|e| about(e, "look at"))?.is_dir() {
            return Err(format!("{shown} is no folder"));
        }
        let options = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"));
        let lock = options.map_err(|e| about(e, "write in"))?;
        let until = Instant::now() + LOCK_WAIT;
        while let Err(e) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if e != rustix::io::Errno::WOULDBLOCK && e != rustix::io::Errno::INTR {
                return Err(about(e.into(), "lock"));
            }
            if Instant::now() >= until {
                return Err(format!(
                    "another process uses {shown} (it holds a lock on {shown}/lock): each process needs a folder of its own"
                ));
            }
            std::thread::sleep(LOCK_STEP);
        }
        let folder = Self {
            path: path.to_owned(),
            data: path.join("data"),
            tmp: path.join("tmp"),
            trash: path.join("trash"),
            next: AtomicU64::new(0),
            cleaning: AtomicBool::new(false),
            _lock: lock,
        };
        folder.prepare().map_err(|e| about(e, "write in"))?;
        Ok(folder)
    }

    fn prepare(&self) -> io::Result<()> {
        for path in [&self.data, &self.tmp, &self.trash] {
            std::fs::create_dir_all(path)?;
        }
        // What was being written when a process was killed.
        self.throw_away(&self.tmp)
    }

    pub fn journal(&self) -> PathBuf {
        self.path.join("purges")
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn place(&self, name: Name) -> PathBuf {
        index::place(&self.data, name)
    }

    /// Where a file is written before it has its name.
    pub fn temporary(&self) -> PathBuf {
        self.tmp.join(self.next.fetch_add(1, Relaxed).to_string())
    }

    /// Everything that is stored is out of reach at once, and removed later.
    pub fn forget_all(&self) -> io::Result<()> {
        self.throw_away(&self.data)
    }

    fn throw_away(&self, path: &Path) -> io::Result<()> {
        // Another process may have died while it removed what it had thrown away.
        let mut free = (0..).map(|n| self.trash.join(n.to_string())).filter(|to| !to.exists());
        if let Some(to) = free.next() {
            std::fs::rename(path, to)?;
        }
        std::fs::create_dir(path)
    }

    /// Removes what was thrown away, unless another thread is about it.
    pub fn clean(&self) {
        while !self.cleaning.swap(true, Relaxed) {
            let left = std::fs::read_dir(&self.trash).map(|found| found.flatten().map(|entry| entry.path()));
            let left: Vec<_> = left.map(Iterator::collect).unwrap_or_default();
            // What cannot be removed is tried again at the next start.
            let removed = left.iter().filter(|path| std::fs::remove_dir_all(path).is_ok()).count();
            self.cleaning.store(false, Relaxed);
            if removed == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_tell_what_to_do_and_a_folder_is_for_one() {
        let dir = tempfile::tempdir().unwrap();
        let error = Folder::take(&dir.path().join("none")).unwrap_err();
        assert!(error.contains("does not exist: create it"), "{error}");
        std::fs::write(dir.path().join("file"), "").unwrap();
        let error = Folder::take(&dir.path().join("file")).unwrap_err();
        assert!(error.contains("is no folder"), "{error}");
        let folder = Folder::take(dir.path()).unwrap();
        let error = Folder::take(dir.path()).unwrap_err();
        assert!(error.contains("another process uses"), "{error}");
        drop(folder);
        drop(Folder::take(dir.path()).unwrap());
    }

    #[test]
    fn what_is_thrown_away_is_gone_at_once_and_removed_later() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::take(dir.path()).unwrap();
        for _ in 0..3 {
            std::fs::create_dir(folder.data().join("ab")).unwrap();
            folder.forget_all().unwrap();
            assert_eq!(std::fs::read_dir(folder.data()).unwrap().count(), 0);
        }
        folder.clean();
        assert_eq!(std::fs::read_dir(dir.path().join("trash")).unwrap().count(), 0);
    }
}
