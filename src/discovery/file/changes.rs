//! That something happens to a file, by inotify(7) on its folder: a file that is replaced by renaming is another one.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

/// What comes within this time is one change: files are often written in several steps.
const SETTLE: Duration = Duration::from_millis(20);

/// Tells of changes in a file's folder, as far as they can be seen.
#[derive(Debug)]
pub struct Changes {
    folder: PathBuf,
    name: Vec<u8>,
    /// `None`: nothing can be seen, because the folder is missing or there are too many watches.
    seen: Option<AsyncFd<OwnedFd>>,
}

impl Changes {
    pub fn of(path: &Path) -> Self {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        Self {
            name: path.file_name().unwrap_or_default().as_bytes().to_owned(),
            seen: open(&folder).ok(),
            folder,
        }
    }

    /// Waits for a change; for ever where none can be seen. May be dropped and called again.
    pub async fn next(&mut self) {
        loop {
            if self.seen.is_none() {
                self.seen = open(&self.folder).ok();
            }
            let Some(seen) = &self.seen else {
                return std::future::pending().await;
            };
            let Ok(mut ready) = seen.readable().await else {
                self.seen = None;
                return;
            };
            sleep(SETTLE).await;
            let drained = drain(seen.get_ref(), &self.name);
            ready.clear_ready();
            match drained {
                Ok(true) => return,
                Ok(false) => {}
                Err(_) => {
                    self.seen = None;
                    return;
                }
            }
        }
    }
}

fn open(folder: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    // Reading is no change; a folder that goes away is: then another one may be there.
    let what = WatchFlags::CREATE
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVED_FROM
        | WatchFlags::DELETE
        | WatchFlags::ONLYDIR;
    inotify::add_watch(&fd, folder, what)?;
    #[expect(
        deprecated,
        reason = "unsound for types that lie about their descriptor, which this one does not"
    )]
    AsyncFd::new(fd)
}

/// Takes in all that was announced: whether some of it is about `name`. An error: the folder is no longer watched.
fn drain(fd: &OwnedFd, name: &[u8]) -> io::Result<bool> {
    let mut room = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(fd, &mut room);
    let mut is_about = false;
    loop {
        match events.next() {
            Ok(event) if event.events().contains(inotify::ReadFlags::IGNORED) => {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(event) => {
                // Kubernetes swaps mounted files by a link called `..data`; no name: events were lost.
                let other = event.file_name().map_or(&b".."[..], |name| name.to_bytes());
                is_about |= other == name || other.starts_with(b"..");
            }
            Err(rustix::io::Errno::AGAIN) => return Ok(is_about),
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sees_writing_and_renaming_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (path, new) = (dir.path().join("a.json"), dir.path().join("new"));
        let mut changes = Changes::of(&path);
        std::fs::write(&path, "1").unwrap();
        changes.next().await;
        std::fs::write(&new, "2").unwrap();
        std::fs::rename(&new, &path).unwrap();
        changes.next().await;
        std::fs::read(&path).unwrap();
        std::fs::write(&new, "3").unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(60), changes.next()).await;
        assert!(quiet.is_err());
    }

    #[tokio::test]
    async fn a_folder_that_comes_later_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("later");
        let mut changes = Changes::of(&folder.join("a.json"));
        assert!(changes.seen.is_none());
        std::fs::create_dir(&folder).unwrap();
        let write = async {
            tokio::task::yield_now().await;
            std::fs::write(folder.join("a.json"), "1").unwrap();
        };
        tokio::join!(changes.next(), write);
        std::fs::remove_dir_all(&folder).unwrap();
        changes.next().await;
        assert!(changes.seen.is_none(), "it is gone");
    }
}
