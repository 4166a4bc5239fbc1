//! What `POST /v1/events` judges by, whatever the log.

use connectors::json::JsonEvents;
use dataflows::port::Decode as _;

use crate::service::EventCheck;

/// Judges at the door as the dataflow will.
pub struct JsonCheck;

impl EventCheck for JsonCheck {
    fn check(&self, payload: &[u8]) -> Result<String, &'static str> {
        let event = JsonEvents.decode(payload).map_err(|cause| cause.as_str())?;
        Ok(event.video_id.into_owned())
    }
}
