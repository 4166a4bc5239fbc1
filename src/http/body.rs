//! Request bodies within bounds: counted while they stream in, inflated no further than allowed, split without a copy.

use std::{
    fmt,
    io::{self, BufRead, Read},
    pin::Pin,
};

use futures_util::StreamExt;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tokio::sync::SemaphorePermit;
use warp::{
    http::{HeaderMap, HeaderValue, header},
    hyper::body::Bytes,
};

use super::{
    State,
    problem::{Problem, quoted},
};

/// The chunks of a body as they come.
pub type Chunks = Pin<Box<dyn warp::Stream<Item = Result<Bytes, warp::Error>> + Send>>;

/// Window sizes that zstd frames may ask for, log2 of bytes: 16 MiB, no more than what may come out.
const ZSTD_WINDOW_LOG_MAX: u32 = 24;

/// A body that is there. While it lives, its bytes count as held.
pub struct Body<'a> {
    pub bytes: Vec<u8>,
    /// Given back when dropped.
    pub held: SemaphorePermit<'a>,
}

/// Reads a body of at most `body_bytes` within `body_timeout`.
pub async fn read<'a>(state: &'a State, headers: &HeaderMap, chunks: Chunks) -> Result<Body<'a>, Problem> {
    let limits = &state.limits;
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let asks_first = headers.contains_key(header::EXPECT);
    if asks_first && declared.is_some_and(|declared| (limits.body_bytes as u64) < declared) {
        return Err(over(limits.body_bytes));
    }
    let gathered = tokio::time::timeout(limits.body_timeout, gather(state, chunks)).await;
    gathered.map_err(|_elapsed| Problem::body_timeout(limits.body_timeout.as_secs()))?
}

async fn gather(state: &State, mut chunks: Chunks) -> Result<Body<'_>, Problem> {
    let body_bytes = state.limits.body_bytes;
    let nothing_held =
        || state.body_room.try_acquire_many(0).map_err(|_closed| Problem::internal("no room for bodies"));
    let mut body = Body { bytes: Vec::new(), held: nothing_held()? };
    let mut len = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_broken| Problem::body("the body broke off"))?;
        len += chunk.len();
        if body_bytes < len {
            // What is left is read and dropped for a while, so that a client in the middle of sending sees the answer.
            body = Body { bytes: Vec::new(), held: nothing_held()? };
            if 4 * body_bytes < len {
                break;
            }
            continue;
        }
        let permits = u32::try_from(chunk.len()).map_err(|_wide| over(body_bytes))?;
        match state.body_room.try_acquire_many(permits) {
            Ok(held) => body.held.merge(held),
            Err(_full) => return Err(Problem::busy("too many bodies are being read at once")),
        }
        body.bytes.extend_from_slice(&chunk);
    }
    if body_bytes < len { Err(over(body_bytes)) } else { Ok(body) }
}

fn over(body_bytes: usize) -> Problem {
    Problem::too_large(format!("a body may have {body_bytes} bytes"))
}

/// How a body is encoded.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
        let encoding = match (values.next().map(HeaderValue::as_bytes), values.next()) {
            (None, _) => Some(Encoding::Identity),
            (Some(name), None) if name.eq_ignore_ascii_case(b"identity") => Some(Encoding::Identity),
            (Some(name), None) if name.eq_ignore_ascii_case(b"gzip") => Some(Encoding::Gzip),
            (Some(name), None) if name.eq_ignore_ascii_case(b"zstd") => Some(Encoding::Zstd),
            _ => None,
        };
        encoding.ok_or_else(|| Problem::unsupported("a content encoding is gzip or zstd, and only one"))
    }
}

/// Undoes the encoding; stops at `inflated_bytes`. Takes processor time: not for an async thread.
pub fn inflate(bytes: &[u8], encoding: Encoding, inflated_bytes: usize) -> Result<Vec<u8>, Problem> {
    match encoding {
        Encoding::Identity => Ok(bytes.to_vec()),
        Encoding::Gzip => read_at_most(flate2::bufread::MultiGzDecoder::new(bytes), inflated_bytes),
        Encoding::Zstd => read_at_most(zstd_decoder(bytes).map_err(|error| broken(&error))?, inflated_bytes),
    }
}

fn zstd_decoder<R: BufRead>(bytes: R) -> io::Result<zstd::stream::read::Decoder<'static, R>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(decoder)
}

fn read_at_most(decoder: impl Read, bytes_max: usize) -> Result<Vec<u8>, Problem> {
    let mut inflated = Vec::new();
    decoder.take(bytes_max as u64 + 1).read_to_end(&mut inflated).map_err(|error| broken(&error))?;
    if bytes_max < inflated.len() {
        return Err(Problem::too_large(format!("a body may have {bytes_max} bytes when it is inflated")));
    }
    Ok(inflated)
}

fn broken(error: &io::Error) -> Problem {
    Problem::body(format!("the body can't be inflated: {}", quoted(&error.to_string())))
}

/// The items of a JSON array, each as its own text. Stops at the first item too many.
pub fn items(array: &[u8], items_max: usize) -> Result<Vec<&RawValue>, Problem> {
    struct Items(usize);
    impl<'de> Visitor<'de> for Items {
        /// `None` where there were too many.
        type Value = Option<Vec<&'de RawValue>>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut items = Some(Vec::new());
            while let Some(item) = seq.next_element()? {
                match &mut items {
                    Some(fitting) if fitting.len() < self.0 => fitting.push(item),
                    _ => items = None,
                }
            }
            Ok(items)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_slice(array);
    let read = deserializer.deserialize_seq(Items(items_max)).and_then(|items| deserializer.end().map(|()| items));
    read.map_err(|error| Problem::body(format!("the body is not a JSON array: {}", quoted(&error.to_string()))))?
        .ok_or_else(|| Problem::too_large(format!("an array may have {items_max} items")))
}

/// Whether the bytes are one JSON value, of any depth, and nothing else.
pub fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(bytes).is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn inflating_stops_one_byte_behind_the_limit() {
        let zeros = vec![0; 1_000_000];
        let zstd = zstd::encode_all(&zeros[..], 3).unwrap();
        for (encoding, encoded) in [(Encoding::Gzip, gzip(&zeros)), (Encoding::Zstd, zstd)] {
            assert!(encoded.len() < 2_000, "a bomb");
            assert_eq!(inflate(&encoded, encoding, 1_000_000), Ok(zeros.clone()));
            let expect = Problem::too_large("a body may have 999999 bytes when it is inflated");
            assert_eq!(inflate(&encoded, encoding, 999_999), Err(expect));
            assert!(inflate(&encoded[..encoded.len() - 9], encoding, 1_000_000).is_err(), "{encoding:?} cut off");
            assert!(inflate(b"{}", encoding, 1_000_000).is_err(), "{encoding:?} of something else");
        }
    }

    #[test]
    fn several_members_or_frames_are_one_body() {
        let gzips = [gzip(b"ab"), gzip(b"c")].concat();
        let zstds = [zstd::encode_all(&b"ab"[..], 1).unwrap(), zstd::encode_all(&b"c"[..], 1).unwrap()].concat();
        assert_eq!(inflate(&gzips, Encoding::Gzip, 3), Ok(b"abc".to_vec()));
        assert_eq!(inflate(&zstds, Encoding::Zstd, 3), Ok(b"abc".to_vec()));
    }

    #[test]
    fn a_zstd_window_wider_than_what_may_come_out_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(25).unwrap();
        encoder.write_all(b"{}").unwrap();
        assert!(inflate(&encoder.finish().unwrap(), Encoding::Zstd, 1_000).is_err());
    }

    #[test]
    fn items_keep_their_own_bytes() {
        let texts: Vec<_> = items(b" [ {\"a\":1.0,\n \"a\":2} , 1e2,\"\\ud800\" ] ", 3).unwrap();
        assert_eq!(
            texts.iter().map(|raw| raw.get()).collect::<Vec<_>>(),
            ["{\"a\":1.0,\n \"a\":2}", "1e2", "\"\\ud800\""]
        );
        assert!(items(b"[1,2,3,4]", 3).is_err());
        assert!(items(b"[1] 2", 3).is_err());
        assert!(items(b"{}", 3).is_err());
        assert!(items(b"[1,", 3).is_err());
        assert_eq!(items(&[b"[".repeat(100_000), b"]".repeat(100_000)].concat(), 3).unwrap().len(), 1, "of any depth");
    }
}
