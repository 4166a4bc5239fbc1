//! Objects below one prefix: listed, created, read, written, removed.

use std::{ops::Range, sync::Arc, time::Duration};

use dataflows::port::BoxError;
use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};
use object_store::{Error, MultipartUpload, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload, Result, path::Path};

/// An object that is larger goes in pieces of this size, bytes: so each has its own time, and S3 takes none that is smaller.
pub(super) const PIECE_BYTES: usize = 5 << 20;

/// Pieces under way at once: they and their copies are in memory.
const PIECES_AT_ONCE: usize = 4;

/// How long the pieces of a failed write are tried to be taken back.
const ABORT_WITHIN: Duration = Duration::from_secs(3);

/// A prefix in a bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Tries again what may be done twice.
    pub(super) patient: Arc<dyn ObjectStore>,
    /// Tries nothing again.
    pub(super) once: Arc<dyn ObjectStore>,
    pub(super) root: Path,
    /// The URL.
    pub(super) shown: String,
}

impl Bucket {
    /// The URL of an object, or of all of them if the name is empty.
    pub(super) fn shown(&self, name: &str) -> String {
        if name.is_empty() { self.shown.clone() } else { format!("{}/{name}", self.shown) }
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').filter(|part| !part.is_empty()).fold(self.root.clone(), |path, part| path.join(part))
    }

    /// The names of the objects in a folder, ascending; not of those in folders below.
    pub(super) async fn names(&self, folder: &str) -> Result<Vec<String>> {
        let listed = self.patient.list_with_delimiter(Some(&self.path(folder))).await?;
        let names = listed.objects.iter().filter_map(|object| object.location.filename());
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Creates an object, unless it is there: whether it did. After an error it may be there.
    pub(super) async fn create(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        let path = self.path(name);
        let exists = match self.once.put_opts(&path, payload(bytes), PutMode::Create.into()).await {
            Err(exists @ Error::AlreadyExists { .. }) => exists,
            done => return done.map(|_| true),
        };
        // S3 says the same (409) while another create of it is under way, which may yet fail: then nobody has it.
        match self.patient.head(&path).await {
            Ok(_) => Ok(false),
            Err(Error::NotFound { .. }) => Err(exists),
            Err(error) => Err(error),
        }
    }

    /// Creates or replaces an object. Until it is there whole, it is not there, or the old one is.
    pub(super) async fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(name);
        if bytes.len() <= PIECE_BYTES {
            return self.patient.put(&path, payload(bytes)).await.map(drop);
        }
        let mut upload = self.patient.put_multipart(&path).await?;
        let written = write_pieces(&mut *upload, bytes).await;
        if written.is_err() {
            // The error that counts is the first; what stays behind is in no list.
            let _ = tokio::time::timeout(ABORT_WITHIN, upload.abort()).await;
        }
        written
    }

    /// An object's bytes, or `None` where it is missing.
    pub(super) async fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path(name);
        let found = match self.patient.get(&path).await {
            Err(Error::NotFound { .. }) => return Ok(None),
            found => found?,
        };
        let size = found.meta.size;
        if size <= PIECE_BYTES as u64 {
            return found.bytes().await.map(|bytes| Some(bytes.to_vec()));
        }
        drop(found);
        let mut whole = Vec::with_capacity(size as usize);
        let pieces = ranges(size).map(|range| self.patient.get_range(&path, range));
        let mut pieces = stream::iter(pieces).buffered(PIECES_AT_ONCE);
        while let Some(piece) = pieces.try_next().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(Some(whole))
    }

    /// Removes objects; one that is gone is as good as removed.
    pub(super) async fn remove(&self, names: Vec<String>) -> Result<()> {
        let paths: Vec<Result<Path>> = names.iter().map(|name| Ok(self.path(name))).collect();
        let mut removed = self.patient.delete_stream(stream::iter(paths).boxed());
        while let Some(removed) = removed.next().await {
            match removed {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

async fn write_pieces(upload: &mut dyn MultipartUpload, bytes: &[u8]) -> Result<()> {
    let pieces = bytes.chunks(PIECE_BYTES).map(|piece| upload.put_part(payload(piece)));
    stream::iter(pieces).buffered(PIECES_AT_ONCE).try_for_each(|()| future::ok(())).await?;
    upload.complete().await.map(drop)
}

fn payload(bytes: &[u8]) -> PutPayload {
    PutPayload::from(bytes.to_vec())
}

fn ranges(size: u64) -> impl Iterator<Item = Range<u64>> {
    (0..size).step_by(PIECE_BYTES).map(move |start| start..size.min(start + PIECE_BYTES as u64))
}

/// An error with what lies at its root: the crate's text has most of its causes in it, but not "connection refused".
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Told {
    text: String,
}

pub(super) fn told(error: Error) -> BoxError {
    let mut text = error.to_string();
    let (mut root, mut next) = (None, std::error::Error::source(&error));
    while let Some(cause) = next {
        (root, next) = (Some(cause.to_string()), cause.source());
    }
    if let Some(root) = root.filter(|root| !text.contains(root.as_str())) {
        text += &format!(": {root}");
    }
    Box::new(Told { text })
}
