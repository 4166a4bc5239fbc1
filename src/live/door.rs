//! What `POST /v1/events` judges by, whatever the log; and whether the log has room.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use connectors::json::JsonEvents;
use dataflows::port::{Decode as _, PartitionId};

use crate::service::{BoxFuture, Entry, EventCheck, Ingest, IngestError};

/// Judges at the door as the dataflow will.
pub struct JsonCheck;

impl EventCheck for JsonCheck {
    fn check(&self, payload: &[u8]) -> Result<String, &'static str> {
        let event = JsonEvents.decode(payload).map_err(|cause| cause.as_str())?;
        Ok(event.video_id.into_owned())
    }
}

/// A client that was refused comes back within this, if it is still so.
const REFUSED_AGAIN_WITHIN: Duration = Duration::from_secs(5);

/// When the log last had no room.
#[derive(Clone, Default)]
pub struct Refusals(Arc<Mutex<Option<Instant>>>);

impl Refusals {
    /// Whether that was a moment ago.
    pub fn are_recent(&self) -> bool {
        let last = *self.0.lock().expect("nobody panics while holding it");
        last.is_some_and(|last| last.elapsed() < REFUSED_AGAIN_WITHIN)
    }

    fn note_if_busy(&self, error: &IngestError) {
        if matches!(error, IngestError::Busy) {
            *self.0.lock().expect("nobody panics while holding it") = Some(Instant::now());
        }
    }
}

/// The way into the log, with a note of what it had no room for.
pub struct Door {
    pub log: Arc<dyn Ingest>,
    pub refusals: Refusals,
}

impl Ingest for Door {
    fn append(&self, entries: Vec<Entry>) -> BoxFuture<Result<Vec<(PartitionId, u64)>, IngestError>> {
        let (answer, refusals) = (self.log.append(entries), self.refusals.clone());
        Box::pin(async move { answer.await.inspect_err(|error| refusals.note_if_busy(error)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Answer = Result<Vec<(PartitionId, u64)>, IngestError>;

    struct Answers(fn() -> Answer);

    impl Ingest for Answers {
        fn append(&self, _: Vec<Entry>) -> BoxFuture<Result<Vec<(PartitionId, u64)>, IngestError>> {
            let answer = (self.0)();
            Box::pin(async move { answer })
        }
    }

    #[tokio::test]
    async fn only_a_log_without_room_is_noted() {
        for (answer, is_noted) in [
            (Answers(|| Ok(Vec::new())), false),
            (Answers(|| Err(IngestError::Failed("no disk".to_owned()))), false),
            (Answers(|| Err(IngestError::Busy)), true),
        ] {
            let refusals = Refusals::default();
            let door = Door { log: Arc::new(answer), refusals: refusals.clone() };
            // What it comes to is the log's affair.
            let _ = door.append(Vec::new()).await;
            assert_eq!(refusals.are_recent(), is_noted);
        }
    }
}
