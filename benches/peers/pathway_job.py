"""Distinct events per video, type and minute by Pathway: pathway_job.py BROKERS TOPIC OUT.

Without a behaviour, since its clock is one for all partitions: each commit may revise a row, so OUT is a CSV of changes.
pathway_job.py rows OUT prints what remains of them.
"""

import collections
import csv
import sys


def run(brokers, topic, out):
    import pathway as pw

    class Event(pw.Schema):
        event_id: str
        video_id: str
        event_type: str
        timestamp: int

    settings = {"bootstrap.servers": brokers, "group.id": "pathway", "auto.offset.reset": "earliest"}
    events = pw.io.kafka.read(settings, topic, schema=Event, format="json", mode="static", autocommit_duration_ms=500)
    minutes = events.windowby(
        events.timestamp,
        window=pw.temporal.tumbling(duration=60_000),
        instance=events.video_id + "\t" + events.event_type,
    )
    counts = minutes.reduce(
        key=pw.this._pw_instance,
        start=pw.this._pw_window_start,
        count=pw.reducers.count_distinct(pw.this.event_id),
    )
    pw.io.csv.write(counts, out)
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)


def rows(changes):
    remaining = collections.Counter()
    for key, start, count, _, diff in csv.reader(open(changes, newline="")):
        if diff != "diff":
            remaining[f"{key}\t{start}\t{count}"] += int(diff)
    for row, times in remaining.items():
        print(*[row] * times, sep="\n", end="\n" if times else "")


if sys.argv[1] == "rows":
    rows(sys.argv[2])
else:
    run(*sys.argv[1:])
