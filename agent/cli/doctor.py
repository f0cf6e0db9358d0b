"""`flipback doctor`: would a flip happen now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.options import config_option

if TYPE_CHECKING:
    from agent.preflight.finding import Finding


@click.command("doctor")
@config_option
@click.option("--json", "as_json", is_flag=True, help="One line of JSON a finding.")
@click.option("--no-kafka", is_flag=True, help="Leave the brokers out.")
def command(path: Path, as_json: bool, no_kafka: bool) -> int:
    """Look at keys and the ledger, read every flag, try every flip as a dry run, ask the brokers and the processes that
    run. Changes nothing. The last line is ARMED, or NOT ARMED and which of the lines before say why.

    Exit status 4 where a flip would fail: a flag system that does not answer, a right or a flag that is missing, a
    ledger that cannot be written, a halt; 1 where only the brokers do not answer, or what runs would not flip: no
    executor, keys that do not fit, another configuration, shadow mode; 4 wins over 1.
    """
    import msgspec

    from agent.config.load import load
    from agent.errors import BackendError, FlipbackError
    from agent.preflight.doctor import examine
    from agent.preflight.finding import finding_line, verdict_line

    found: list[Finding] = []

    async def show(findings: AsyncIterator[Finding]) -> None:
        async for finding in findings:
            found.append(finding)
            click.echo(msgspec.json.encode(finding) if as_json else finding_line(finding))

    asyncio.run(show(examine(load(path), kafka=not no_kafka)))
    bad = [finding for finding in found if not finding.ok]
    if not as_json:
        click.echo(verdict_line(found, kafka=not no_kafka))
    if any(finding.local for finding in bad):
        return BackendError.exit_code
    return FlipbackError.exit_code if bad else 0
