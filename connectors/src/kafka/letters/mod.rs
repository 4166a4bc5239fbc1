//! Dead letters as a topic: one record each, all of a checkpoint in one transaction.
//!
//! | part of a record | is |
//! |---|---|
//! | value | the letter's JSON, as the contract's section 6 has it |
//! | key | `TOPIC-PARTITION-OFFSET` of the refused record |
//! | header `tidemark-history` | whose letter it is, 32 hexadecimal digits |
//! | header `tidemark-generation`, `tidemark-number` | the version that it was published under, decimal |
//! | header `tidemark-topic-id` | the refused record's topic, 32 hexadecimal digits, 0 where brokers have no ids |
//!
//! **Once.** The records carry the version that they were published under, and versions only rise, so the last record of a
//! history names the newest one. It is looked for from the end, once: while the history has one owner, that knows it. (A
//! consumer group's offset, committed in the same transaction, would name it too. But `rd_kafka_send_offsets_to_transaction`
//! may block for ever when a broker goes away, librdkafka issue 5456.)
//!
//! **One owner.** The transactional id is `tidemark-HISTORY`: who opens it last has it, and ends what others had begun. An
//! owner that lost it is told at its next transaction, and never takes it back. To open one that brokers have never seen takes half a second: of
//! a new history, which nobody else knows, that is left for later.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use dataflows::{
    letter::{DeadLetter, LETTER_BYTES_MAX},
    port::{LetterSink, PartitionId, SinkError, Version},
};
use rdkafka::{
    ClientContext, Statistics,
    config::RDKafkaLogLevel,
    error::KafkaError as RdError,
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
    types::RDKafkaErrorCode,
};

use super::{
    ask::Asker,
    context::{log, warn_gently},
    error::{FORBIDDEN, Fault, KafkaError, is_any},
    settings::{LETTER_RECORD_BYTES_MAX, Settings},
    topic::{BATCH_BYTES, Creation, Topic, bytes_max_of, client, failure, properties_of},
    wait::patiently,
};
use crate::letter::Letter;

mod read;

use read::Bounds;
pub use read::{ReadError, Reading, count, read};

/// One step of a transaction. The caller comes again after it.
const STEP_LIMIT: Duration = Duration::from_secs(15);

/// Between two looks whether a letter was not taken.
const FLUSH_LIMIT: Duration = Duration::from_millis(100);

/// A letter's JSON, bytes: what the topic takes, less what a record has around it.
const LETTER_JSON_BYTES_MAX: usize = LETTER_RECORD_BYTES_MAX as usize - (64 << 10);

const HISTORY: &str = "tidemark-history";
const GENERATION: &str = "tidemark-generation";
const NUMBER: &str = "tidemark-number";
const TOPIC_ID: &str = "tidemark-topic-id";

/// A [`LetterSink`] on the dead letter topic.
pub struct Letters {
    settings: Settings,
    topic: Topic,
    history: u128,
    /// The input topic's.
    topic_id: u128,
    batch_bytes: usize,
    owner: Owner,
    /// The newest version, where it is known.
    newest: Option<Option<Version>>,
}

/// Its thread takes what the brokers say of records, also while a transaction is ended, which waits for that.
type Publisher = ThreadedProducer<Publishing>;

/// Whether this is who publishes.
enum Owner {
    /// Not yet; nobody else knows of the history.
    New,
    /// Yes.
    Us(Publisher),
    /// Yes, but how the transaction ends is not known yet: the producer goes on with it when asked again.
    Ending(Publisher, Ending),
    /// The producer was of no use any more; its last version was of this generation.
    Nobody { generation: u64 },
    /// No.
    Another,
}

#[derive(Copy, Clone)]
enum Ending {
    Commit(Version),
    Abort(u64),
}

impl Letters {
    /// Opens the topic of dead letters, makes it where it is missing, and becomes the history's only publisher.
    pub fn open(settings: &Settings, history: u128, patience: Duration) -> Result<Self, KafkaError> {
        let letters = Self::open_new(settings, history, patience)?;
        let producer = patiently(patience, || own(settings, history, letters.batch_bytes), is_transient);
        let producer = producer.map_err(|error| match error {
            OwnError::Client(error) => error,
            OwnError::Fault(fault) => failure(settings, &settings.dead_letter_topic, patience, fault),
        })?;
        Ok(Self { owner: Owner::Us(producer), newest: None, ..letters })
    }

    /// The same for a history that nobody else knows of: its only publisher at [`LetterSink::own`], or when it is asked for more than what
    /// others have published.
    pub fn open_new(settings: &Settings, history: u128, patience: Duration) -> Result<Self, KafkaError> {
        let bytes_max = LETTER_RECORD_BYTES_MAX.to_string();
        let properties =
            [("cleanup.policy", "delete"), ("max.message.bytes", bytes_max.as_str()), ("retention.ms", "-1")];
        let create = Creation { partitions: 1, properties: &properties };
        let topic = Topic::open_named(settings, &settings.dead_letter_topic, Some(create), patience)?;
        let asker = Asker::new(settings, &settings.topic)?;
        let described = patiently(patience, || asker.describe(&|| false), Fault::is_transient);
        let topic_id = match described {
            Ok(described) => described.id,
            Err(fault) if fault.is_unknown_topic() => 0,
            Err(fault) => return Err(failure(settings, &settings.topic, patience, fault)),
        };
        // A batch that the topic does not take fails all its letters: only one that is too large by itself may.
        let held = properties_of(settings, &settings.dead_letter_topic).unwrap_or_default();
        let batch_bytes = bytes_max_of(&held).unwrap_or(BATCH_BYTES).min(BATCH_BYTES);
        let settings = settings.clone();
        Ok(Self { settings, topic, history, topic_id, batch_bytes, owner: Owner::New, newest: Some(None) })
    }

    /// Ends what is pending, or becomes the owner again. Not where another has become it.
    fn settle(&mut self) -> Result<(), SinkError> {
        match std::mem::replace(&mut self.owner, Owner::Another) {
            Owner::New => {
                self.owner = Owner::New;
                self.owner = Owner::Us(self.become_owner()?);
                Ok(())
            }
            Owner::Us(producer) => {
                self.owner = Owner::Us(producer);
                Ok(())
            }
            Owner::Ending(producer, Ending::Commit(version)) => self.commit(producer, version),
            Owner::Ending(producer, Ending::Abort(generation)) => self.abort(producer, generation),
            Owner::Nobody { generation } => {
                self.owner = Owner::Nobody { generation };
                // Opening would take it from whoever has it now.
                let bounds = read::present(&self.topic);
                let newest = bounds.map_err(ReadError::from).and_then(|bounds| self.by_records(bounds));
                if self.known(newest)?.is_some_and(|newest| generation < newest.generation) {
                    self.owner = Owner::Another;
                    return Err(self.fenced());
                }
                self.owner = Owner::Us(self.become_owner()?);
                // What was pending has ended by now, one way or the other.
                self.newest = None;
                Ok(())
            }
            Owner::Another => Err(self.fenced()),
        }
    }

    fn become_owner(&self) -> Result<Publisher, SinkError> {
        own(&self.settings, self.history, self.batch_bytes).map_err(|error| match error {
            OwnError::Fault(fault) if is_any(fault.code, &FORBIDDEN) => {
                SinkError::Refused { sink: self.sink(), what: "a publisher".to_owned(), cause: Box::new(fault) }
            }
            OwnError::Fault(fault) => self.unanswered("a publisher", fault),
            OwnError::Client(error) => self.unanswered("a publisher", error),
        })
    }

    /// The newest version, by the records where it is not known.
    fn look_up(&mut self) -> Result<Option<Version>, SinkError> {
        if let Some(newest) = self.newest {
            return Ok(newest);
        }
        let bounds = read::settled(&self.topic, STEP_LIMIT);
        let newest = self.known(bounds.and_then(|bounds| self.by_records(bounds)))?;
        self.newest = Some(newest);
        Ok(newest)
    }

    fn known<T>(&self, found: Result<T, ReadError>) -> Result<T, SinkError> {
        found.map_err(|error| self.unanswered("a look at what is published", error))
    }

    fn by_records(&self, bounds: Vec<(PartitionId, Bounds)>) -> Result<Option<Version>, ReadError> {
        let mut newest = None;
        for (partition, bounds) in bounds {
            let last = read::last(&self.topic, partition, bounds, |published| {
                published.version.filter(|_| published.history == Some(self.history))
            })?;
            newest = newest.max(last);
        }
        Ok(newest)
    }

    fn transact(&mut self, version: Version, letters: &[DeadLetter]) -> Result<(), SinkError> {
        let Owner::Us(producer) = std::mem::replace(&mut self.owner, Owner::Another) else {
            return Err(self.fenced());
        };
        match self.fill(&producer, version, letters) {
            Ok(()) => self.commit(producer, version),
            // An abort without an answer is gone on with at the next call: what was not taken is what the caller must know.
            Err(error) => match self.abort(producer, version.generation) {
                Err(fenced @ SinkError::Fenced { .. }) => Err(fenced),
                Ok(()) | Err(_) => Err(error),
            },
        }
    }

    /// Begins a transaction and puts everything into it.
    fn fill(&self, producer: &Publisher, version: Version, letters: &[DeadLetter]) -> Result<(), SinkError> {
        let what = || format!("the letters of checkpoint {}-{}", version.generation, version.number);
        let attempt = Arc::new(Attempt::default());
        producer.begin_transaction().map_err(|error| self.unanswered(&what(), Fault::from(error)))?;
        for (index, letter) in letters.iter().enumerate() {
            let on_the_way = OnTheWay { attempt: Arc::clone(&attempt), index };
            self.put(producer, version, letter, on_the_way)?;
        }
        self.flush(producer, &attempt, letters)
    }

    fn put(
        &self,
        producer: &Publisher,
        version: Version,
        letter: &DeadLetter,
        on_the_way: OnTheWay,
    ) -> Result<(), SinkError> {
        let json = json(&self.settings.topic, letter);
        let key = format!("{}-{}-{}", self.settings.topic, letter.partition.0, letter.offset);
        let mut record = BaseRecord::with_opaque_to(&self.settings.dead_letter_topic, Box::new(on_the_way))
            .key(&key)
            .payload(&json)
            .headers(self.headers(version));
        let start = Instant::now();
        loop {
            match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back)) => {
                    let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
                    if code != RDKafkaErrorCode::QueueFull || STEP_LIMIT < start.elapsed() {
                        return Err(self.not_taken(letter, code));
                    }
                    record = back;
                    producer.poll(Duration::from_millis(10));
                }
            }
        }
    }

    /// Waits until all letters are taken, or one is not: behind it librdkafka sends no others.
    fn flush(&self, producer: &Publisher, attempt: &Attempt, letters: &[DeadLetter]) -> Result<(), SinkError> {
        let start = Instant::now();
        loop {
            let flushed = producer.flush(FLUSH_LIMIT);
            let Failures { refused, given_up } = attempt.failures();
            if let Some((index, code)) = refused.or(given_up.filter(|_| flushed.is_ok())) {
                return Err(self.not_taken(&letters[index], code));
            }
            match flushed {
                Ok(()) => return Ok(()),
                Err(error) if STEP_LIMIT < start.elapsed() => {
                    return Err(self.unanswered(&format!("{} letters", letters.len()), Fault::from(error)));
                }
                Err(_) => {}
            }
        }
    }

    fn headers(&self, version: Version) -> OwnedHeaders {
        let (history, topic_id) = (format!("{:032x}", self.history), format!("{:032x}", self.topic_id));
        let (generation, number) = (version.generation.to_string(), version.number.to_string());
        let all = [(HISTORY, &history), (GENERATION, &generation), (NUMBER, &number), (TOPIC_ID, &topic_id)];
        let add = |headers: OwnedHeaders, (key, value): (&str, &String)| {
            headers.insert(Header { key, value: Some(value.as_str()) })
        };
        all.into_iter().fold(OwnedHeaders::new_with_capacity(all.len()), add)
    }

    fn commit(&mut self, producer: Publisher, version: Version) -> Result<(), SinkError> {
        match producer.commit_transaction(STEP_LIMIT) {
            Ok(()) => {
                self.owner = Owner::Us(producer);
                self.newest = Some(Some(version));
                Ok(())
            }
            Err(error) => {
                self.newest = None;
                let (kind, fault) = (kind_of(&error, &producer), Fault::from(error));
                let error = self.unanswered("the end of a transaction", fault);
                match kind {
                    Kind::Fenced => Err(self.fenced()),
                    Kind::Fatal => {
                        self.owner = Owner::Nobody { generation: version.generation };
                        Err(error)
                    }
                    Kind::Abort => {
                        self.abort(producer, version.generation)?;
                        Err(error)
                    }
                    Kind::Again => {
                        self.owner = Owner::Ending(producer, Ending::Commit(version));
                        Err(error)
                    }
                }
            }
        }
    }

    fn abort(&mut self, producer: Publisher, generation: u64) -> Result<(), SinkError> {
        match producer.abort_transaction(STEP_LIMIT) {
            Ok(()) => self.keep(producer, generation),
            Err(error) => {
                let (kind, fault) = (kind_of(&error, &producer), Fault::from(error));
                match kind {
                    Kind::Fenced => Err(self.fenced()),
                    // Nothing was begun.
                    _ if fault.is(RDKafkaErrorCode::State) => self.keep(producer, generation),
                    Kind::Again => {
                        self.owner = Owner::Ending(producer, Ending::Abort(generation));
                        Err(self.unanswered("the end of a transaction", fault))
                    }
                    Kind::Fatal | Kind::Abort => {
                        self.owner = Owner::Nobody { generation };
                        Err(self.unanswered("the end of a transaction", fault))
                    }
                }
            }
        }
    }

    /// Goes on with the producer, if it can go on.
    fn keep(&mut self, producer: Publisher, generation: u64) -> Result<(), SinkError> {
        self.owner = match fatal_kind(&producer) {
            None => Owner::Us(producer),
            Some(Kind::Fenced) => return Err(self.fenced()),
            Some(_) => Owner::Nobody { generation },
        };
        Ok(())
    }

    fn sink(&self) -> String {
        format!("topic {:?}", self.settings.dead_letter_topic)
    }

    fn fenced(&self) -> SinkError {
        let what = format!("another process publishes the letters of history {:032x}", self.history);
        SinkError::Fenced { sink: self.sink(), what }
    }

    fn unanswered(&self, what: &str, cause: impl std::error::Error + Send + Sync + 'static) -> SinkError {
        SinkError::Unanswered { sink: self.sink(), what: what.to_owned(), cause: Box::new(cause) }
    }

    fn not_taken(&self, letter: &DeadLetter, code: RDKafkaErrorCode) -> SinkError {
        let what = format!("the letter of partition {} offset {}", letter.partition.0, letter.offset);
        let fault = Fault::new(code, code.to_string());
        let too_large = [RDKafkaErrorCode::MessageSizeTooLarge, RDKafkaErrorCode::MessageBatchTooLarge];
        if is_any(fault.code, &too_large) || is_any(fault.code, &FORBIDDEN) || fault.is_unknown_topic() {
            return SinkError::Refused { sink: self.sink(), what, cause: Box::new(fault) };
        }
        self.unanswered(&what, fault)
    }
}

impl LetterSink for Letters {
    fn own(&mut self) -> Result<(), SinkError> {
        self.settle()
    }

    fn newest(&mut self) -> Result<Option<Version>, SinkError> {
        self.settle()?;
        self.look_up()
    }

    fn published(&mut self) -> Result<HashSet<(PartitionId, u64)>, SinkError> {
        // Of a new history nothing is pending.
        if !matches!(self.owner, Owner::New) {
            self.settle()?;
        }
        let mut places = HashSet::new();
        let bounds = self.known(read::settled(&self.topic, STEP_LIMIT))?;
        for published in read::Published::within(&self.topic, bounds) {
            let published = self.known(published)?;
            // A topic made anew under the same name has other records at the same places.
            let same_topic = [published.topic_id, self.topic_id].contains(&0) || published.topic_id == self.topic_id;
            if let Some(source) = published.source.filter(|source| same_topic && source.topic == self.settings.topic) {
                places.insert(source.place());
            }
        }
        Ok(places)
    }

    fn publish(&mut self, version: Version, letters: &[DeadLetter]) -> Result<(), SinkError> {
        if letters.is_empty() {
            return Ok(());
        }
        self.settle()?;
        if self.look_up()?.is_some_and(|newest| version <= newest) {
            return Ok(());
        }
        self.transact(version, letters)
    }
}

/// The letter's JSON. One that the topic would not take is cut: the log still has the whole record.
fn json(topic: &str, letter: &DeadLetter) -> Vec<u8> {
    let whole = Letter::new(topic, letter);
    let json = serde_json::to_vec(&whole).expect("numbers and strings are JSON");
    if json.len() <= LETTER_JSON_BYTES_MAX {
        return json;
    }
    let start = |bytes: &Vec<u8>| bytes[..bytes.len().min(LETTER_BYTES_MAX)].to_vec();
    let cut = DeadLetter {
        key: letter.key.as_ref().map(start),
        headers: Vec::new(),
        payload: start(&letter.payload),
        ..letter.clone()
    };
    warn_gently(&format!(
        "the letter of partition {} offset {} has {} bytes: its key and payload are cut, its headers left out",
        letter.partition.0,
        letter.offset,
        json.len()
    ));
    serde_json::to_vec(&Letter::new(topic, &cut)).expect("numbers and strings are JSON")
}

enum OwnError {
    Client(KafkaError),
    Fault(Fault),
}

fn is_transient(error: &OwnError) -> bool {
    matches!(error, OwnError::Fault(fault) if fault.is_transient())
}

/// Becomes the only publisher of a history: ends what others had begun, and all that they will begin.
fn own(settings: &Settings, history: u128, batch_bytes: usize) -> Result<Publisher, OwnError> {
    let config = settings.letters(&format!("tidemark-{history:032x}"), batch_bytes);
    let producer: Publisher = client(&config, Publishing).map_err(OwnError::Client)?;
    producer.init_transactions(STEP_LIMIT).map_err(|error| OwnError::Fault(error.into()))?;
    Ok(producer)
}

/// What follows from an error of a transaction.
enum Kind {
    Fenced,
    Fatal,
    Abort,
    /// The same call again.
    Again,
}

/// Another owner's doing.
const FENCED: [RDKafkaErrorCode; 3] =
    [RDKafkaErrorCode::Fenced, RDKafkaErrorCode::ProducerFenced, RDKafkaErrorCode::InvalidProducerEpoch];

/// Why the producer can't go on, if it can't.
fn fatal_kind(producer: &Publisher) -> Option<Kind> {
    let (code, _) = producer.client().fatal_error()?;
    Some(if FENCED.contains(&code) { Kind::Fenced } else { Kind::Fatal })
}

fn kind_of(error: &RdError, producer: &Publisher) -> Kind {
    if let Some(kind) = fatal_kind(producer) {
        return kind;
    }
    match error {
        RdError::Transaction(error) if error.is_fatal() && FENCED.contains(&error.code()) => Kind::Fenced,
        RdError::Transaction(error) if error.is_fatal() => Kind::Fatal,
        RdError::Transaction(error) if error.txn_requires_abort() => Kind::Abort,
        RdError::Transaction(error) if error.is_retriable() => Kind::Again,
        RdError::Flush(_) => Kind::Again,
        _ => Kind::Abort,
    }
}

/// One try to publish: which letter was not taken first, by its place, and which one librdkafka gave up because of that:
/// it tells in any order, and of an earlier try maybe late.
#[derive(Default)]
struct Attempt {
    failures: Mutex<Failures>,
}

#[derive(Copy, Clone, Default)]
struct Failures {
    refused: Option<(usize, RDKafkaErrorCode)>,
    given_up: Option<(usize, RDKafkaErrorCode)>,
}

impl Attempt {
    fn lock(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn failures(&self) -> Failures {
        *self.lock()
    }

    fn fail(&self, index: usize, code: RDKafkaErrorCode) {
        let mut failures = self.lock();
        let failure = match code {
            RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight => &mut failures.given_up,
            _ => &mut failures.refused,
        };
        failure.get_or_insert((index, code));
    }
}

/// A letter on its way.
struct OnTheWay {
    attempt: Arc<Attempt>,
    index: usize,
}

/// Listens to the publisher.
struct Publishing;

impl ClientContext for Publishing {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, _: RdError, reason: &str) {
        warn_gently(reason);
    }
}

impl ProducerContext for Publishing {
    type DeliveryOpaque = Box<OnTheWay>;

    fn delivery(&self, result: &DeliveryResult<'_>, letter: Box<OnTheWay>) {
        if let Err((error, _)) = result {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
            letter.attempt.fail(letter.index, code);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dataflows::event::{Cause, Reason};
    use rdkafka::{
        mocking::MockCluster,
        producer::DefaultProducerContext,
        types::{RDKafkaApiKey, RDKafkaRespErr},
    };

    use super::*;
    use crate::kafka::native::break_for_good;

    fn letter(key_bytes: usize, payload_bytes: usize) -> DeadLetter {
        DeadLetter {
            partition: PartitionId(1),
            offset: 2,
            reason: Reason::Malformed(Cause::Utf8),
            append_time: None,
            key: Some(vec![1; key_bytes]),
            headers: vec![("h".to_owned(), None)],
            payload: vec![1; payload_bytes],
        }
    }

    #[test]
    fn a_letter_that_no_topic_takes_is_cut_and_all_others_are_whole() {
        // A control character takes six bytes in JSON.
        let whole: Letter = serde_json::from_slice(&json("t", &letter(9, 1 << 20))).unwrap();
        assert_eq!((whole.payload.unwrap().len(), whole.headers.len()), (1 << 20, 1));
        let bytes = json("t", &letter(1 << 20, 1 << 20));
        assert!(bytes.len() <= LETTER_JSON_BYTES_MAX);
        let cut: Letter = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((cut.key.unwrap().len(), cut.payload.unwrap().len()), (LETTER_BYTES_MAX, LETTER_BYTES_MAX));
    }

    fn version(generation: u64, number: u64) -> Version {
        Version { generation, number }
    }

    /// A twin of one broker, with both topics.
    fn broker() -> (MockCluster<'static, DefaultProducerContext>, Settings) {
        let cluster = MockCluster::new(1).unwrap();
        let settings = Settings {
            brokers: vec![cluster.bootstrap_servers()],
            topic: "events".to_owned(),
            dead_letter_topic: "letters".to_owned(),
            properties: BTreeMap::new(),
            passing: Default::default(),
        };
        for topic in ["events", "letters"] {
            cluster.create_topic(topic, 1, 1).unwrap();
        }
        (cluster, settings)
    }

    #[test]
    fn regression_a_letter_that_is_refused_is_named_although_the_end_of_its_transaction_gets_no_answer() {
        let (cluster, settings) = broker();
        let mut letters = Letters::open(&settings, 7, Duration::from_secs(20)).unwrap();
        letters.publish(version(1, 1), &[letter(1, 1)]).unwrap();
        cluster.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]);
        let busy = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS; 10_000];
        cluster.request_errors(RDKafkaApiKey::EndTxn, &busy);
        let refused = letters.publish(version(1, 2), &[letter(2, 2)]);
        assert!(matches!(refused, Err(SinkError::Refused { .. })), "{refused:?}");
        assert!(matches!(letters.owner, Owner::Ending(_, Ending::Abort(1))));
        cluster.clear_request_errors(RDKafkaApiKey::EndTxn);
        // Behind a refused record librdkafka 2.12 counts on as if it had been taken, is told so, and is right the next time.
        let mut again = || letters.publish(version(1, 2), &[letter(2, 2)]);
        again().or_else(|_| again()).unwrap();
        assert_eq!(letters.newest().unwrap(), Some(version(1, 2)));
    }

    #[test]
    fn after_an_error_that_it_cannot_go_on_after_the_owner_is_the_owner_again_unless_another_is() {
        let (_cluster, settings) = broker();
        let open = || Letters::open(&settings, 7, Duration::from_secs(20)).unwrap();
        let broken = |letters: &Letters| match &letters.owner {
            Owner::Us(producer) => break_for_good(producer.client()),
            _ => panic!("it was just opened"),
        };
        let mut letters = open();
        letters.publish(version(1, 1), &[letter(1, 1)]).unwrap();
        broken(&letters);
        let unanswered = letters.publish(version(1, 2), &[letter(2, 2)]);
        assert!(matches!(unanswered, Err(SinkError::Unanswered { .. })), "{unanswered:?}");
        letters.publish(version(1, 2), &[letter(2, 2)]).unwrap();
        assert_eq!(letters.newest().unwrap(), Some(version(1, 2)));
        broken(&letters);
        open().publish(version(2, 3), &[letter(3, 3)]).unwrap();
        let unanswered = letters.publish(version(1, 3), &[letter(3, 3)]);
        assert!(matches!(unanswered, Err(SinkError::Unanswered { .. })), "{unanswered:?}");
        for _ in 0..2 {
            let fenced = letters.publish(version(1, 3), &[letter(3, 3)]);
            assert!(matches!(fenced, Err(SinkError::Fenced { .. })), "{fenced:?}");
        }
    }
}
