//! A body that is too large to be read into memory as a whole: it is read while it is sent, block by block, each checked
//! before a byte of it leaves.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::index::Name;
use super::{Open, READ_TIMEOUT, Read};
use crate::cache::record::{BLOCK, Sums};

/// Blocks that are read at once.
const AT_ONCE: usize = 2;

/// The body of one file. It stays what it is while it is open, whatever takes its place.
pub struct Large {
    open: Arc<Open>,
    file: File,
    pub(super) name: Name,
    /// Where it begins in the file.
    offset: u64,
    pub sums: Sums,
}

/// The file does not give what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

impl Large {
    pub(super) fn new(open: Arc<Open>, file: File, name: Name, offset: u64, sums: Sums) -> Self {
        Self {
            open,
            file,
            name,
            offset,
            sums,
        }
    }

    /// Some blocks, of which the first is the one that holds the byte at this place.
    pub async fn read(self: Arc<Self>, at: u64) -> Result<Bytes, Unreadable> {
        let (to, read) = oneshot::channel();
        let first = usize::try_from(at / BLOCK as u64).map_err(|_| Unreadable)?;
        let open = self.open.clone();
        let job = Read::Blocks { large: self, first, to };
        open.shared.queue(job).ok_or(Unreadable)?;
        match tokio::time::timeout(READ_TIMEOUT, read).await {
            Ok(read) => read.ok().flatten().ok_or(Unreadable),
            Err(_) => {
                open.shared.late();
                Err(Unreadable)
            }
        }
    }

    /// On a thread that may wait. An error of the kind `InvalidData`: it is not what was written.
    pub fn blocks(&self, first: usize) -> io::Result<Bytes> {
        let start = first as u64 * BLOCK as u64;
        let left = self.sums.length.saturating_sub(start);
        let length = left.min((AT_ONCE * BLOCK) as u64) as usize;
        let mut data = vec![0; length];
        self.file.read_exact_at(&mut data, self.offset + start)?;
        match self.sums.fits(first, &data) {
            true => Ok(data.into()),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl fmt::Debug for Large {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Large")
            .field("length", &self.sums.length)
            .finish_non_exhaustive()
    }
}
