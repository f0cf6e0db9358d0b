"""`flipback replay`: judge recorded telemetry without a broker."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from agent.cli.options import Finite, config_option

FORMATS = ("json", "json-array", "ndjson", "columnar", "counters")


@click.command("replay")
@config_option
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
    from agent.offline.replay_report import replay_report
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
    report = replay_report(run, len(files), config.trigger_specs(), judged, time.monotonic() - started)
    for note in report.lines:
        sys.stderr.write(f"{note}\n")
    return 0 if report.matched else 1
