"""Checks the newest telemetry against a configuration, by reading the topics without a running process."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from agent.backends.contract import FlagRef
from agent.config.kafka import connection
from agent.config.model import Config
from agent.telemetry.recorded import Counts, lost, unmatched
from agent.telemetry.unflagged import unflagged_in
from agent.telemetry.unread_fields import unread_fields
from detectors.cells import REQUESTS, Scope
from detectors.conditions.metric_table import METRIC_TABLE
from detectors.conditions.spec import TriggerSpec
from detectors.missing.missing_samples import MOST_MISSING
from streams.decoders.decoder import Decoder
from streams.decoders.interner import Interner
from streams.ingest.reducer import Reducer
from streams.kafka.reader import Tail, tails
from streams.kafka.topics import describe
from streams.monitor.watch_list import watch_list
from streams.replay import Tally
from streams.slices import Slice, Source

NEWEST = 1000
"""Records of a topic that are read."""

_EVERY = "every service, flag and variant of a trigger"


class TopicLook(NamedTuple):
    """A finding on one topic, or on all of them; `ok` if it keeps no trigger from judging."""

    what: str
    ok: bool
    detail: str
    topic: str | None = None


async def look_at_telemetry(config: Config, safe: Collection[FlagRef] = ()) -> list[TopicLook]:
    """Read the newest records of every telemetry topic. Raises StreamsError if the brokers or a topic are away.

    `safe` are the flags that give the safe variant now.
    """
    client = connection(config).client
    partitions = await describe([one.topic for one in config.telemetry], client)
    sources = [Source(topic, p) for topic, number in partitions.items() for p in range(number)]
    least = min(partitions.values())
    found = await tails(sources, client, max(1, math.ceil(NEWEST / least)))
    return list(judge(config, found, time.time(), safe))


def judge(
    config: Config, found: Mapping[Source, Tail], now: float, safe: Collection[FlagRef] = ()
) -> Iterator[TopicLook]:
    """The findings on the tails of the telemetry's partitions; `now` is in Unix seconds.

    A safe flag gives no other variant: if samples lack one, the finding is shown and is `ok`.
    """
    specs = config.trigger_specs()
    interner = Interner(watch_list(specs, config.drift_targets()), config.max_scopes)
    decoder = Decoder({one.topic: one.format for one in config.telemetry}, interner)
    whole = Tally()
    for one in config.telemetry:
        own = {source: tail for source, tail in found.items() if source.topic == one.topic}
        tally, newest = Tally(), -math.inf
        for source, tail in own.items():
            if tail.records:
                newest = max(newest, tail.records[-1].timestamp / 1000)
                _count(source, tail, decoder, Reducer(source, interner, math.inf), tally)
        yield _of_topic(one.topic, tally, newest, now, config, ever=any(tail.ever for tail in own.values()))
        for scope, row in tally.counts.items():
            whole.counts[scope] = whole.counts.get(scope, 0) + row
        whole.unread.update(tally.unread)
    if not whole.counts:
        return
    names = list(unmatched(specs, whole.counts, safe))
    for name in unmatched(specs, whole.counts):
        if name not in names:
            yield TopicLook("samples", True, f"{name} (the flag is safe now)")
    problems = [*names, *_without_field(specs, whole.counts), *lost(whole.counts)]
    problems += unread_fields(specs, whole.counts, whole.unread)
    # Some requests may never use the flag, so this finding is `ok`.
    for note in unflagged_in(specs, whole.counts, whole.unread):
        yield TopicLook("samples", True, note)
    for problem in problems:
        yield TopicLook("samples", False, problem)
    if not problems:
        whose = "every service of a trigger, and every variant of a flag in use," if safe else _EVERY
        yield TopicLook("samples", True, f"{whose} is in the newest {NEWEST:,} records")


def _count(source: Source, tail: Tail, decoder: Decoder, reducer: Reducer, tally: Tally) -> None:
    """Count the records of a partition as the ingest role does, with no record late."""
    records = tail.records
    headers = {i: dict(record.headers).get("content-type") for i, record in enumerate(records) if record.headers}
    batch = decoder.decode(
        Slice(
            source,
            [record.value for record in records],
            [record.offset for record in records],
            [record.timestamp for record in records],
            {i: value for i, value in headers.items() if value is not None},
        )
    )
    tally.records += len(records)
    for reject in batch.rejects + reducer.add(batch, time.time()):
        tally.rejected[reject.kind] += reject.rows
        if len(tally.reasons) < 1:
            tally.reasons.append(f"record {source.partition}/{reject.offset}: {reject.reason}")
    tally.add(reducer.close(math.inf))


def _of_topic(topic: str, tally: Tally, newest: float, now: float, config: Config, *, ever: bool) -> TopicLook:
    """Is something written to the topic, lately, and can it be read?"""
    what = f"telemetry {topic}"
    if not tally.records:
        return TopicLook(what, False, "no record is left of it" if ever else "nobody has ever written to it", topic)
    age = max(0.0, now - newest)
    if age > float(config.unknown_alert):
        since = datetime.fromtimestamp(newest, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return TopicLook(what, False, f"none since {since}", topic)
    requests = sum(int(row[REQUESTS]) for scope, row in tally.counts.items() if not scope.flag)
    rejected = tally.rejected.total()
    share = 100 * rejected / max(requests + rejected, 1)
    detail = f"{requests:,} requests in the newest {tally.records:,} records, the newest {age:.0f} s old"
    if rejected:
        detail += f"; {rejected:,} samples rejected ({share:.3g} %), {tally.reasons[0]}"
    return TopicLook(what, share <= MOST_MISSING, detail, topic)


def _without_field(specs: Sequence[TriggerSpec], counts: Counts) -> Iterator[str]:
    """A sentence for each field that a trigger needs and no sample of its service has."""
    for spec in specs:
        row = counts.get(Scope(spec.environment, spec.service))
        if row is None or not row[REQUESTS]:
            continue
        metric = METRIC_TABLE[spec.condition.metric]
        if metric.needs and metric.samples is not None and not row[metric.samples]:
            service = f"{spec.environment}/{spec.service}"
            yield f"no sample of {service} has `{metric.needs}`, by which trigger {spec.name!r} judges"
