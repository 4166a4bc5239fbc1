//! The calls of librdkafka that `rdkafka` has no safe form of: batches of messages, `DescribeTopics` and `ListOffsets`.
//!
//! The only file here with `unsafe` in it. What each object of librdkafka needs is in one type with a `Drop`:
//!
//! | type | holds | lives as long as |
//! |---|---|---|
//! | [`PartitionQueue`] | a consumer, the queue of one partition, messages taken from it | messages, then queue, then consumer are dropped |
//! | [`Message`] | one message, destroyed once, when dropped | at most its queue (a borrow) |
//! | [`Reply`], [`Options`], [`Event`] | a queue, options and the answer of one question | at most the client (a borrow) |
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    marker::PhantomData,
    ptr::{self, NonNull},
    slice,
    time::{Duration, Instant},
};

use dataflows::{
    port::{Header, Headers},
    time::EventTime,
};
use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    types::RDKafkaErrorCode,
};
use rdkafka_sys as rd;

use super::{context::Context, error::Fault};

/// Messages taken at once: a read's bound.
pub const BATCH: usize = 1_024;

/// How long an answer is waited for before the caller is asked whether it still wants it.
const SLICE: Duration = Duration::from_millis(50);

/// The messages of one partition, in order, apart from everything else that its consumer has to say.
pub struct PartitionQueue {
    queue: NonNull<rd::rd_kafka_queue_t>,
    /// `held[next..len]` are ours to destroy; the rest is stale.
    held: Box<[*mut rd::rd_kafka_message_t; BATCH]>,
    next: usize,
    len: usize,
    consumer: BaseConsumer<Context>,
}

// SAFETY: librdkafka's handles may be used from any thread, and the pointers are reached through `&mut self` alone
// (`Message` borrows it), so moving the whole to another thread leaves one user of them.
unsafe impl Send for PartitionQueue {}

impl PartitionQueue {
    /// Takes the partition's queue out of the consumer's. Before the assignment, so that nothing gets into the other.
    pub fn new(consumer: BaseConsumer<Context>, topic: &str, partition: u32) -> Result<Self, Fault> {
        let topic = c_string(topic)?;
        // SAFETY: the client lives; the name is a C string and is copied.
        let queue = unsafe {
            rd::rd_kafka_queue_get_partition(
                consumer.client().native_ptr(),
                topic.as_ptr(),
                partition_number(partition),
            )
        };
        let queue = NonNull::new(queue)
            .ok_or_else(|| Fault::new(RDKafkaErrorCode::UnknownPartition, "the partition has no queue"))?;
        // SAFETY: the queue was just made. From here on it is forwarded to no other: librdkafka heeds that in every later
        // assignment (RD_KAFKA_Q_F_FWD_APP).
        unsafe { rd::rd_kafka_queue_forward(queue.as_ptr(), ptr::null_mut()) };
        Ok(Self { queue, held: Box::new([ptr::null_mut(); BATCH]), next: 0, len: 0, consumer })
    }

    /// The consumer, for everything but its messages.
    pub fn consumer(&self) -> &BaseConsumer<Context> {
        &self.consumer
    }

    /// Takes a batch, if none is held, without waiting; how many are held then.
    pub fn fill(&mut self) -> usize {
        if self.next == self.len {
            // SAFETY: the queue lives, and `held` has room for BATCH pointers. Every one that is written is a message that
            // is ours to destroy from now on.
            let taken =
                unsafe { rd::rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, self.held.as_mut_ptr(), BATCH) };
            self.next = 0;
            // -1 is an error of the call itself: a queue that is served otherwise, which this one is not.
            self.len = usize::try_from(taken).unwrap_or(0);
        }
        self.len - self.next
    }

    /// How many messages are held.
    pub fn held(&self) -> usize {
        self.len - self.next
    }

    /// The next of the messages held.
    pub fn take(&mut self) -> Option<Message<'_>> {
        let message = self.held[self.next..self.len].first()?;
        self.next += 1;
        NonNull::new(*message).map(|message| Message { message, queue: PhantomData })
    }

    /// Lets go of the messages held.
    pub fn discard(&mut self) {
        while self.take().is_some() {}
    }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        self.discard();
        // SAFETY: no message of ours is left, the queue is destroyed once, and the consumer, a field, goes after it.
        unsafe { rd::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

/// A message, or an event in its place.
pub struct Message<'a> {
    message: NonNull<rd::rd_kafka_message_t>,
    queue: PhantomData<&'a mut PartitionQueue>,
}

impl Drop for Message<'_> {
    fn drop(&mut self) {
        // SAFETY: it was taken out of `held`, whose pointers are passed on once each, so this is the only destruction.
        unsafe { rd::rd_kafka_message_destroy(self.message.as_ptr()) };
    }
}

impl Message<'_> {
    fn raw(&self) -> &rd::rd_kafka_message_t {
        debug_assert!(self.code() == 0, "an event's error need not be in librdkafka's enum");
        // SAFETY: librdkafka gave a valid message, which lives until we are dropped; its error is 0, so a valid enum.
        unsafe { self.message.as_ref() }
    }

    fn code(&self) -> i32 {
        // SAFETY: the message is valid. Read as the integer that it is in C: a newer broker's code has no variant here.
        unsafe { (&raw const (*self.message.as_ptr()).err).cast::<i32>().read() }
    }

    /// The event that this is instead of a record.
    pub fn event(&self) -> Option<Fault> {
        let code = self.code();
        if code == 0 {
            return None;
        }
        // SAFETY: the message is valid; the text is null or a C string that lives as long.
        let text = unsafe { text(rd::rd_kafka_message_errstr(self.message.as_ptr())) };
        Some(Fault { code, text })
    }

    /// Its offset; an event's is where it happened.
    pub fn offset(&self) -> Option<u64> {
        // SAFETY: the message is valid.
        let offset = unsafe { (&raw const (*self.message.as_ptr()).offset).read() };
        u64::try_from(offset).ok()
    }

    /// The record's bytes; none at all count as an empty record.
    pub fn payload(&self) -> &[u8] {
        let raw = self.raw();
        // SAFETY: a record's payload is null or `len` bytes that live as long as the message.
        unsafe { bytes(raw.payload, raw.len) }.unwrap_or_default()
    }

    /// The record's key.
    pub fn key(&self) -> Option<&[u8]> {
        let raw = self.raw();
        // SAFETY: as for the payload.
        unsafe { bytes(raw.key, raw.key_len) }
    }

    /// When the record was appended, or made, as the topic has it.
    pub fn append_time(&self) -> Option<EventTime> {
        let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is valid, and `kind` is written with one of three constants.
        let ms = unsafe { rd::rd_kafka_message_timestamp(self.message.as_ptr(), &mut kind) };
        u64::try_from(ms).ok()
    }
}

impl Headers for Message<'_> {
    fn list(&self) -> Vec<Header> {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is valid, and its headers, if it has any, live as long. librdkafka parses them now, which
        // changes the message; nobody else looks at it, since it is neither `Sync` nor shared.
        unsafe { rd::rd_kafka_message_headers(self.message.as_ptr(), &mut headers) };
        if headers.is_null() {
            return Vec::new();
        }
        // SAFETY: `headers` is valid; name and value, where the call says that there is one, live as long.
        let header = |index| unsafe {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            let got = rd::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size);
            let there = got == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
            there.then(|| (text(name), bytes(value, size).map(<[u8]>::to_vec)))
        };
        (0..).map_while(header).collect()
    }
}

/// What the brokers say of a topic.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Drawn when the topic was made; 0 where brokers have none.
    pub id: u128,
    /// How many partitions it has.
    pub partitions: u32,
}

/// Asks a broker about a topic, or the controller. Never makes one. Gives up after `limit`, or when it is `unwanted`.
pub fn describe(
    client: &BaseConsumer<Context>,
    topic: &str,
    broker: Option<i32>,
    limit: Duration,
    unwanted: &dyn Fn() -> bool,
) -> Result<Described, Fault> {
    let name = c_string(topic)?;
    let options = Options::new(client, rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, limit)?;
    if let Some(broker) = broker {
        options.set_broker(broker)?;
    }
    let reply = Reply::new(client);
    // SAFETY: client, names, options and queue live through the call, which copies what it keeps; the collection is
    // destroyed once. Results belong to the event, and are read before it goes.
    unsafe {
        let mut names = [name.as_ptr()];
        let topics = rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        rd::rd_kafka_DescribeTopics(
            client.client().native_ptr(),
            topics,
            options.options.as_ptr(),
            reply.queue.as_ptr(),
        );
        rd::rd_kafka_TopicCollection_destroy(topics);
        let event = reply.wait(limit, unwanted)?;
        let mut count = 0;
        let result = rd::rd_kafka_event_DescribeTopics_result(event.0.as_ptr());
        let found = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        let nothing = || Fault::new(RDKafkaErrorCode::Fail, "the brokers' answer names no topic");
        if count != 1 {
            return Err(nothing());
        }
        let found = *found;
        let error = rd::rd_kafka_TopicDescription_error(found);
        if !error.is_null() && rd::rd_kafka_error_code(error) != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            let code = RDKafkaErrorCode::from(rd::rd_kafka_error_code(error));
            return Err(Fault::new(code, text(rd::rd_kafka_error_string(error))));
        }
        let mut partitions = 0;
        rd::rd_kafka_TopicDescription_partitions(found, &mut partitions);
        let id = rd::rd_kafka_TopicDescription_topic_id(found);
        let id = if id.is_null() {
            0
        } else {
            let high = rd::rd_kafka_Uuid_most_significant_bits(id).cast_unsigned();
            let low = rd::rd_kafka_Uuid_least_significant_bits(id).cast_unsigned();
            u128::from(high) << 64 | u128::from(low)
        };
        u32::try_from(partitions).map(|partitions| Described { id, partitions }).map_err(|_| nothing())
    }
}

/// Which offset of a partition is asked for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The first that is held.
    First,
    /// The one behind the last record of a finished transaction, or of none: what readers reach.
    Stable,
    /// The one behind the last record.
    High,
}

/// Asks for one offset of each of these partitions.
pub fn offsets(
    client: &BaseConsumer<Context>,
    topic: &str,
    partitions: &[u32],
    place: Place,
    limit: Duration,
    unwanted: &dyn Fn() -> bool,
) -> Result<Vec<u64>, Fault> {
    let name = c_string(topic)?;
    let options = Options::new(client, rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS, limit)?;
    if place == Place::Stable {
        options.set_read_committed()?;
    }
    let spec = match place {
        Place::First => rd::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_EARLIEST,
        Place::Stable | Place::High => rd::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST,
    };
    let reply = Reply::new(client);
    let mut found = vec![None; partitions.len()];
    // SAFETY: as in `describe`; an element that was added to the list is valid until the list is destroyed, once.
    unsafe {
        let list = rd::rd_kafka_topic_partition_list_new(c_int::try_from(partitions.len()).unwrap_or(0));
        for partition in partitions {
            let element = rd::rd_kafka_topic_partition_list_add(list, name.as_ptr(), partition_number(*partition));
            (*element).offset = spec as i64;
        }
        rd::rd_kafka_ListOffsets(client.client().native_ptr(), list, options.options.as_ptr(), reply.queue.as_ptr());
        rd::rd_kafka_topic_partition_list_destroy(list);
        let event = reply.wait(limit, unwanted)?;
        let mut count = 0;
        let result = rd::rd_kafka_event_ListOffsets_result(event.0.as_ptr());
        let infos = rd::rd_kafka_ListOffsets_result_infos(result, &mut count);
        for index in 0..count {
            let element = rd::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos.add(index));
            if (*element).err != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                let what = text(rd::rd_kafka_err2str((*element).err));
                return Err(Fault::new(RDKafkaErrorCode::from((*element).err), what));
            }
            let wanted = partitions.iter().position(|wanted| partition_number(*wanted) == (*element).partition);
            if let (Some(wanted), Ok(offset)) = (wanted, u64::try_from((*element).offset)) {
                found[wanted] = Some(offset);
            }
        }
    }
    let all: Option<Vec<u64>> = found.into_iter().collect();
    // So it is while a partition has no leader.
    let missing = "the brokers' answer names no offset of a partition";
    all.ok_or_else(|| Fault::new(RDKafkaErrorCode::OffsetNotAvailable, missing))
}

/// The queue that one answer comes to. An answer that comes after this is gone is dropped by librdkafka.
struct Reply<'a> {
    queue: NonNull<rd::rd_kafka_queue_t>,
    client: PhantomData<&'a BaseConsumer<Context>>,
}

impl<'a> Reply<'a> {
    fn new(client: &'a BaseConsumer<Context>) -> Self {
        // SAFETY: the client lives.
        let queue = unsafe { rd::rd_kafka_queue_new(client.client().native_ptr()) };
        let queue = NonNull::new(queue).expect("librdkafka aborts where it has no memory");
        Self { queue, client: PhantomData }
    }

    /// The answer. `limit` is a little less than what librdkafka was given, and ends it even so.
    fn wait(&self, limit: Duration, unwanted: &dyn Fn() -> bool) -> Result<Event, Fault> {
        let start = Instant::now();
        loop {
            // SAFETY: the queue lives; an event that comes out is ours to destroy.
            let event = unsafe {
                rd::rd_kafka_queue_poll(self.queue.as_ptr(), c_int::try_from(SLICE.as_millis()).unwrap_or(1))
            };
            if let Some(event) = NonNull::new(event) {
                let event = Event(event);
                // SAFETY: the event is valid, its text lives as long.
                let (error, what) = unsafe {
                    let what = rd::rd_kafka_event_error_string(event.0.as_ptr());
                    (rd::rd_kafka_event_error(event.0.as_ptr()), text(what))
                };
                if error == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                    return Ok(event);
                }
                return Err(Fault::new(RDKafkaErrorCode::from(error), what));
            }
            if unwanted() || limit + SLICE < start.elapsed() {
                return Err(Fault::new(RDKafkaErrorCode::OperationTimedOut, "no answer in time"));
            }
        }
    }
}

impl Drop for Reply<'_> {
    fn drop(&mut self) {
        // SAFETY: made in `new`, destroyed once; the client, which is borrowed, is still there.
        unsafe { rd::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

struct Event(NonNull<rd::rd_kafka_event_t>);

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: it came out of a queue, once.
        unsafe { rd::rd_kafka_event_destroy(self.0.as_ptr()) };
    }
}

struct Options<'a> {
    options: NonNull<rd::rd_kafka_AdminOptions_t>,
    client: PhantomData<&'a BaseConsumer<Context>>,
}

impl<'a> Options<'a> {
    fn new(client: &'a BaseConsumer<Context>, of: rd::rd_kafka_admin_op_t, limit: Duration) -> Result<Self, Fault> {
        // SAFETY: the client lives.
        let options = unsafe { rd::rd_kafka_AdminOptions_new(client.client().native_ptr(), of) };
        let options = NonNull::new(options).expect("librdkafka knows the operation");
        let options = Self { options, client: PhantomData };
        options.set_limit(limit)?;
        Ok(options)
    }

    fn set_limit(&self, limit: Duration) -> Result<(), Fault> {
        let ms = c_int::try_from(limit.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the options are valid; an error's text is written within the bounds given.
        self.set(|options, said, size| unsafe {
            rd::rd_kafka_AdminOptions_set_request_timeout(options, ms, said, size)
        })
    }

    fn set_broker(&self, broker: i32) -> Result<(), Fault> {
        // SAFETY: as in `set_limit`.
        self.set(|options, said, size| unsafe { rd::rd_kafka_AdminOptions_set_broker(options, broker, said, size) })
    }

    fn set(
        &self,
        set: impl FnOnce(*mut rd::rd_kafka_AdminOptions_t, *mut c_char, usize) -> rd::rd_kafka_resp_err_t,
    ) -> Result<(), Fault> {
        let mut said: [c_char; 256] = [0; 256];
        match set(self.options.as_ptr(), said.as_mut_ptr(), said.len()) {
            rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
            // SAFETY: librdkafka ends the text with a zero; untouched it is empty.
            code => Err(Fault::new(RDKafkaErrorCode::from(code), unsafe { text(said.as_ptr()) })),
        }
    }

    fn set_read_committed(&self) -> Result<(), Fault> {
        // SAFETY: the options are valid; an error is ours to destroy, after its text is copied.
        unsafe {
            let committed = rd::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED;
            let error = rd::rd_kafka_AdminOptions_set_isolation_level(self.options.as_ptr(), committed);
            if error.is_null() {
                return Ok(());
            }
            let code = RDKafkaErrorCode::from(rd::rd_kafka_error_code(error));
            let fault = Fault::new(code, text(rd::rd_kafka_error_string(error)));
            rd::rd_kafka_error_destroy(error);
            Err(fault)
        }
    }
}

impl Drop for Options<'_> {
    fn drop(&mut self) {
        // SAFETY: made in `new`, destroyed once.
        unsafe { rd::rd_kafka_AdminOptions_destroy(self.options.as_ptr()) };
    }
}

fn c_string(topic: &str) -> Result<CString, Fault> {
    CString::new(topic).map_err(|_| Fault::new(RDKafkaErrorCode::InvalidTopic, "a topic's name holds no zero byte"))
}

fn partition_number(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

/// # Safety
///
/// The pointer is null or a C string.
unsafe fn text(from: *const c_char) -> String {
    if from.is_null() {
        return String::new();
    }
    // SAFETY: by contract.
    unsafe { CStr::from_ptr(from) }.to_string_lossy().into_owned()
}

/// # Safety
///
/// The pointer is null or leads to as many bytes, which stay as they are for `'a`.
unsafe fn bytes<'a>(from: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: by contract.
    (!from.is_null()).then(|| unsafe { slice::from_raw_parts(from.cast(), len) })
}

/// Lets a client behave as after an error that it can't go on after.
#[cfg(test)]
pub fn break_for_good<C: rdkafka::ClientContext>(client: &rdkafka::client::Client<C>) {
    let code = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    // SAFETY: the client lives, the text is a C string.
    unsafe { rd::rd_kafka_test_fatal_error(client.native_ptr(), code, c"a test".as_ptr()) };
}
