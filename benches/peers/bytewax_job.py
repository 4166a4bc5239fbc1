"""Distinct events per video, type and minute by Bytewax and an operator of one's own: bytewax_job:flow(BROKERS, TOPIC, OUT)."""

import bytewax.operators as op
import orjson
from bytewax.connectors.files import FileSink
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow

MINUTE_MS = 60_000
LATENESS_MS = 30_000

# librdkafka pauses for a second where its queue is full, unless told otherwise.
READER = {
    "fetch.message.max.bytes": "4194304",
    "queued.max.messages.kbytes": "65536",
    "queued.min.messages": "1000000",
    "fetch.queue.backoff.ms": "5",
    "fetch.wait.max.ms": "10",
}


class Partition(op.StatefulBatchLogic):
    """The open minutes of one partition, by their start: the ids seen, and the counts by video and type."""

    def __init__(self, state):
        self.newest, self.open_from, self.minutes = state or (0, 0, {})

    def on_batch(self, batches):
        minutes, newest, open_from = self.minutes, self.newest, self.open_from
        rows, loads = [], orjson.loads
        for batch in batches:
            for value in batch:
                event = loads(value)
                event_id, time = event["event_id"], event["timestamp"]
                key = event["video_id"] + "\t" + event["event_type"]
                start = time - time % MINUTE_MS
                if start < open_from:
                    continue
                if start not in minutes:
                    minutes[start] = set(), {}
                ids, counts = minutes[start]
                if event_id not in ids:
                    ids.add(event_id)
                    counts[key] = counts.get(key, 0) + 1
                if time > newest:
                    newest = time
                    if newest - LATENESS_MS >= open_from + MINUTE_MS:
                        open_from = (newest - LATENESS_MS) // MINUTE_MS * MINUTE_MS
                        rows += self.close(open_from)
        self.newest, self.open_from = newest, open_from
        return rows, self.RETAIN

    def on_eof(self):
        return self.close(float("inf")), self.RETAIN

    def close(self, end):
        rows = []
        for start in sorted(start for start in self.minutes if start < end):
            _, counts = self.minutes.pop(start)
            rows.append("\n".join(f"{key}\t{start}\t{count}" for key, count in counts.items()))
        return rows

    def snapshot(self):
        return self.newest, self.open_from, {start: (set(ids), dict(counts)) for start, (ids, counts) in self.minutes.items()}


def split(messages):
    """One list of records a partition: a batch may hold messages of several. To parse them here already would cost more, in pickling."""
    partitions = {}
    for message in messages:
        partitions.setdefault(str(message.partition), []).append(message.value)
    return partitions.items()


def flow(brokers, topic, out):
    job = Dataflow("counts")
    source = KafkaSource([brokers], [topic], tail=False, batch_size=5000, add_config=READER)
    records = op.flat_map_batch("split", op.input("events", job, source), split)
    op.output("rows", op.stateful_batch("count", records, Partition), FileSink(out))
    return job
