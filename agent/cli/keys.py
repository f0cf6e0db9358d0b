"""`flipback keys`: the keys that sign commands."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("keys")
def command() -> None:
    """Make the keys that sign commands."""


@command.command("generate")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".flipback"),
    show_default=True,
    help="Where both files go; the default is the state directory of a configuration beside it.",
)
def generate(directory: Path) -> None:
    """Make a new Ed25519 key pair: the private key for the monitor, the public key for the executor.

    Existing keys are never overwritten.
    """
    from agent.commands import keys

    private, public = keys.generate(directory)
    click.echo(f"private key, for the monitor alone:  {private}")
    click.echo(f"public key, for the executor:        {public}")
    click.echo(f"key id:                              {keys.load_public(public).id}")
