"""`flipback test`: unit tests of triggers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.options import Written

if TYPE_CHECKING:
    from agent.offline.trigger_tests import TriggerTestResult


@click.command("test")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--junit", type=Written(), help="Write the results there as JUnit XML.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a test.")
def command(files: tuple[Path, ...], junit: Path | None, as_json: bool) -> int:
    """Try the triggers of a configuration on input series, and compare what they say with what is expected.

    Exit status 1 where a test fails, 3 where a file is no test. The form of FILES is in docs/detection.md.
    """
    import msgspec

    from agent.offline.junit import junit_xml
    from agent.offline.trigger_tests import run

    results: dict[Path, list[TriggerTestResult]] = {}
    for path in files:
        if not as_json:
            click.echo(f"{path}")
        for result in run(path):
            results.setdefault(path, []).append(result)
            if as_json:
                line = {"file": str(path), "test": result.name, "failures": result.failures, "notes": result.notes}
                click.echo(msgspec.json.encode(line))
                continue
            click.echo(f"  {'FAILED' if result.failures else 'ok    '} {result.name}")
            for failure in result.failures:
                click.echo(f"         {failure}")
            for note in result.notes:
                click.echo(f"         note: {note}")
    if junit is not None:
        junit.write_bytes(junit_xml(results))
    failed = sum(bool(result.failures) for found in results.values() for result in found)
    if not as_json:
        total = sum(len(found) for found in results.values())
        click.echo(f"{total - failed} passed, {failed} failed")
    return 1 if failed else 0
