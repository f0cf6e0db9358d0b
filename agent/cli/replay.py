"""`flipback replay`: judge recorded telemetry without a broker."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from agent.cli.options import Finite

FORMATS = ("json", "json-array", "ndjson", "columnar", "counters")


@click.command("replay")
@click.option(
    "-c", "--config", "path", required=True, type=click.Path(path_type=Path), help="Configuration, YAML or TOML."
)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format", type=click.Choice(FORMATS), help="Format of the files; the first telemetry topic's if absent."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--evaluations", is_flag=True, help="Every evaluation of every trigger, not only changes.")
@click.option("--at-speed", type=Finite(min=0, min_open=True), help="Times faster than it was recorded.")
def command(
    path: Path, files: tuple[Path, ...], format: str | None, as_json: bool, evaluations: bool, at_speed: float | None
) -> int:
    """Run recorded telemetry through the triggers of a configuration and print what they would have done.

    FILES are recordings, gzip or not, a record a line. Several are read side by side by their time. Prints each change
    of a verdict, each command that would have been sent and, where none would be although a trigger fires, why; a
    tally of what was read goes to stderr, with samples that did not count, names that none had and triggers that could
    never judge. Exit status 1 where nothing was counted, or nothing of a service that is watched.
    """
    from typing import cast

    import msgspec

    from agent.config.load import load
    from agent.offline.replay import Change, replay, text
    from agent.telemetry.recorded import lost, matches_nothing, never_judged, unmatched
    from agent.telemetry.watch import told
    from streams.ingest.telemetry_counts import MOST_FAULTS
    from streams.settings import Format

    config = load(path)
    run, lines = replay(config, files, cast(Format, format or config.telemetry[0].format), evaluations=evaluations)
    started, first, judged = time.monotonic(), None, set()
    for line in lines:
        if isinstance(line, Change):
            judged.add((line.flag, line.trigger))
        if at_speed is not None:
            first = line.time if first is None else first
            time.sleep(max(0.0, (line.time - first) / at_speed - (time.monotonic() - started)))
        sys.stdout.write((msgspec.json.encode(line).decode() if as_json else text(line)) + "\n")
        if at_speed is not None:
            sys.stdout.flush()
    tally = run.tally
    rejected = ", ".join(f"{count} {kind}" for kind, count in sorted(tally.rejected.items())) or "none"
    sys.stderr.write(
        f"read {tally.records} records in {time.monotonic() - started:.1f} s; rejected samples: {rejected}\n"
    )
    for reason in tally.reasons:
        sys.stderr.write(f"  {reason}\n")
    for fault in tally.faults.entries()[:MOST_FAULTS]:
        sys.stderr.write(f"flipback: warning: {told(fault)}\n")
    silent = run.silent()
    for name in silent:
        sys.stderr.write(f"{name}: nothing in it was counted; is it a recording in the format that --format names?\n")
    specs = config.trigger_specs()
    if len(silent) == len(files):
        return 1
    notes = [*lost(tally.counts), *unmatched(specs, tally.counts), *never_judged(run.shard.triggers(), judged)]
    for note in notes:
        sys.stderr.write(f"flipback: warning: {note}\n")
    return 1 if matches_nothing(specs, tally.counts) else 0
