"""Replay real recordings with default triggers, for docs/replays.md and a picture of each.

`python -m tests.oracle.replays` writes the page and the pictures; a test compares them with the replays.
"""

from __future__ import annotations

import json
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agent.config.load import load
from agent.offline import backtest_plot as timeline
from agent.offline.backtest import Backtest, LabelledFault, TriggerReport, backtest
from streams.settings import Format
from tests.oracle import crash_rates, mooncake, nginx_status, online_boutique

DATA = Path(__file__).parent.parent / "data"
DOCS = Path(__file__).parents[2] / "docs"
WITHIN = 300.0
"""Seconds after a fault's end within which a firing counts as its detection: the default of `flipback backtest`."""


@dataclass(frozen=True)
class Recording:
    """A real recording; its configuration is `name`.yaml beside the data."""

    name: str
    format: Format
    records: Callable[[], Iterator[bytes]]
    faults: Sequence[LabelledFault]

    def run(self) -> Backtest:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "recording.jsonl"
            path.write_bytes(b"".join(record + b"\n" for record in self.records()))
            return backtest(load(DATA / f"{self.name}.yaml"), [path], self.format, self.faults, within=WITHIN)


RECORDINGS = {
    recording.name: recording
    for recording in (
        Recording("online-boutique", "json", online_boutique.records, online_boutique.faults()),
        Recording("mooncake", "counters", mooncake.records, mooncake.faults()),
        Recording("nginx-plus", "counters", nginx_status.records, []),
        Recording("crash-rates", "counters", crash_rates.records, crash_rates.faults()),
    )
}

HEAD = f"""\
# Replays of real recordings

None of the recordings was made for flipback. The triggers are the seed triggers, or round numbers chosen before the
first replay; every other setting has its default. Sources and licences are in `tests/data/README.md`, the
configurations in the same folder. `python -m tests.oracle.replays` writes this page and its pictures, and a test
compares them with the replays.

A trigger detects a fault if it begins to fire between the fault's beginning and {WITHIN:.0f} s after its end; any other
firing is a false alarm. Healthy time is the time without a fault in which the trigger could judge; unknown time is
the time in which it could not. In the pictures a fault is orange, a firing trigger red, unknown time hatched, and a
false alarm a ring.
"""


def pages(found: dict[str, Backtest]) -> dict[str, str]:
    """The files by name."""
    sections = [_boutique(found["online-boutique"]), _mooncake(found["mooncake"]), _nginx(found["nginx-plus"])]
    text = "\n".join([HEAD, *sections, _crashes(found["crash-rates"])])
    return {"replays.md": text} | {f"replay-{name}.svg": timeline.picture(one) for name, one in found.items()}


def _boutique(found: Backtest) -> str:
    times = sorted(json.loads(record)["ts"] for record in online_boutique.records())
    (trigger,) = found.triggers
    rows = []
    for one in trigger.detections:
        at = one.fault.at
        kind, _, where = one.fault.name.partition(" of ")
        after = sum(at <= ts < at + WITHIN for ts in times)
        seen = f"{one.delay:.0f} s" if one.delay is not None else "firing already" if one.already else "no"
        rows.append(f"| {_clock(at)} | {kind} | {where} | {after} | {seen} |")
    about = f"""
        The front end of a demo shop on 22 August 2022, 03:52 to 07:55 UTC, {len(times):,} requests, {len(rows)}
        injected faults (IntelligentDDS/Nezha). One latency trigger for the one service that was recorded.
    """
    limits = """
        A fault in one of a dozen services behind the front end need not change the front end's p90 if few requests pass
        through that service, and a request that ends with an exception is fast. The recording has no outcomes, so
        errors cannot be judged. The source has gaps between the minutes around each fault.
    """
    return f"""\
## Online Boutique

{_paragraph(about)}
{_table(found)}
![When the trigger fired, and when faults were injected](replay-online-boutique.svg)

{_paragraph(limits)}
| injected (UTC) | kind | where | requests in the next {WITHIN:.0f} s | detected after |
|---|---|---|---|---|
{_lines(rows)}"""


def _mooncake(found: Backtest) -> str:
    requests = list(mooncake.requests())
    rates = [f"{mooncake.hit_rate(begin * 60, (begin + 10) * 60):.1%}" for begin in (0, 20, 30, 50)]
    about = f"""
        {len(requests):,} requests of a conversation service in an hour, and the blocks of tokens that they look up,
        {sum(len(blocks) for _, blocks in requests):,} in all (kvcache-ai/Mooncake). They run through a
        least-recently-used cache of {mooncake.BLOCKS:,} blocks, which is reduced to {mooncake.SHRUNK:,} after 30
        minutes and restored after 40; its counters are read every {mooncake.INTERVAL} s. The requests are real; the
        incident and the date are made up. Hit rate of minutes 0 to 10: {rates[0]}, 20 to 30: {rates[1]}, 30 to 40:
        {rates[2]}, 50 to 60: {rates[3]}.
    """
    limits = f"""
        flipback refuses the seed trigger `cache_hit_rate < 40% for 5m` for this cache, which is below 40 % when
        healthy. These two triggers compare with half of the {rates[1]} before the incident. The cause of the false
        alarm of the quicker one is the cold cache at the beginning of the recording.
    """
    return f"""\
## Mooncake

{_paragraph(about)}
{_table(found)}
![When the triggers fired, and when the cache was small](replay-mooncake.svg)

{_paragraph(limits)}"""


def _nginx(found: Backtest) -> str:
    statuses = list(nginx_status.statuses())
    begin, end = (statuses[index]["timestamp"] / 1000 for index in (0, -1))
    rows = []
    for trigger in found.triggers:
        firing = ", ".join(f"{_clock(begun)} to {_clock(ended)}" for begun, ended in trigger.firing) or "never"
        unknown = trigger.unknown_hours * 3600 / (found.end - found.begin)
        rows.append(f"| {trigger.flag} | {trigger.condition} | {firing} | {unknown:.0%} |")
    first, last = dict(nginx_status.totals(statuses[0])), dict(nginx_status.totals(statuses[-1]))
    totals = []
    for name, counters in first.items():
        rises = (f"{last[name][key] - counters[key]:,} {key.replace('_', ' ')}" for key in counters)
        totals.append(f"- {name}: {', '.join(rises)}")
    about = f"""
        {len(statuses)} status pages of nginx.org in the night to 31 October 2015, {_clock(begin)} to {_clock(end)} UTC,
        one every {(end - begin) / (len(statuses) - 1):.1f} s (elastic/examples), as counters of zones, upstreams,
        health checks and the cache. The recording has no labels, so no firing counts as false: the table shows when
        each trigger fired and for how much of the time it could not judge. The site has less than one request in 2 s,
        and the seed triggers wait for so many samples that they do not fire by chance. If a trigger had too few
        samples, the table has it once more with `over 5m` and `min_samples: 30`, with which a few failures are enough.
    """
    limits = """
        The firings have these causes: the backup servers of two upstreams failed every health check, three of
        hg.nginx.org's few requests failed within 15 s, and the cache answers a quarter of its lookups. The fast tier
        detects the failed health checks. The counters of a zone do not separate a 502 from another 5xx, so availability
        is judged at the upstreams.
    """
    return f"""\
## nginx

{_paragraph(about)}
{_lines(totals)}
| flag | trigger | firing (UTC) | unknown |
|---|---|---|---|
{_lines(rows)}
![When the triggers fired and when they could not judge](replay-nginx-plus.svg)

{_paragraph(limits)}"""


def _crashes(found: Backtest) -> str:
    faults = crash_rates.faults()
    seen = sum(trigger.detected for trigger in found.triggers)
    false = sum(len(trigger.false_alarms) for trigger in found.triggers)
    # An hour of the recording is 60 hours, 2.5 days, of the source.
    days = sum(trigger.healthy_hours for trigger in found.triggers) * 2.5
    about = f"""
        Nine labelled series of an application's crash rate, 19 June to 18 July 2018, one value per hour
        (microsoft/cloud-monitoring-dataset). The source gives neither the unit nor the launches: a value is read as the
        crashes in {crash_rates.LAUNCHES:,} launches, and each hour as having so many. An hour of the source is a minute
        of the replay, so `2m` means two hours, and delays in seconds are minutes of the source. A fault is a run of
        labelled hours.
    """
    limits = f"""
        The trigger detects {seen} of {len(faults)} faults, with {false} false alarms in {days:.0f} healthy days of the
        source, all series together. The labels mark values that are unusual for a series; the trigger detects values
        above 2 % for two hours. In {crash_rates.below(0.02)} of the {len(faults)} runs no hour is above 2 %.
    """
    return f"""\
## Crash rates

{_paragraph(about)}
{_table(found)}
![When the triggers fired, and which hours are labelled](replay-crash-rates.svg)

{_paragraph(limits)}"""


def _table(found: Backtest) -> str:
    head = "| flag | trigger | detected | delay p50 | longest | false alarms | a healthy hour | healthy h | unknown h |"
    return _lines([head, "|---|---|---|---|---|---|---|---|---|", *map(_row, found.triggers)])


def _row(trigger: TriggerReport) -> str:
    delays, rate = trigger.delays, trigger.false_alarms_per_hour
    cells = (
        trigger.flag,
        trigger.condition,
        f"{trigger.detected} of {len(trigger.detections)}",
        f"{delays[len(delays) // 2]:.0f} s" if delays else "-",
        f"{delays[-1]:.0f} s" if delays else "-",
        len(trigger.false_alarms),
        "-" if rate is None else f"{rate:.2f}",
        f"{trigger.healthy_hours:.2f}",
        f"{trigger.unknown_hours:.2f}",
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def _paragraph(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), width=118, break_on_hyphens=False) + "\n"


def _lines(rows: Sequence[str] | Iterator[str]) -> str:
    return "".join(f"{row}\n" for row in rows)


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")


if __name__ == "__main__":
    for name, content in pages({name: recording.run() for name, recording in RECORDINGS.items()}).items():
        (DOCS / name).write_text(content)
