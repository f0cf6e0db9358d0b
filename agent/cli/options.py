"""Options that several commands share, and types of options that are stricter than click's own."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import click

PORT = click.IntRange(0, 65535)

config_option = click.option(
    "-c", "--config", "path", required=True, type=click.Path(path_type=Path), help="Configuration, YAML or TOML."
)


class Finite(click.FloatRange):
    """A finite number in a range. Click's own type accepts `nan` in every range, and `inf` in one without upper end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no number that can be worked with", param, ctx)
        return number


class Written(click.Path):
    """A file that the command writes at its end. One that cannot be written is refused before the work begins."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        folder = path.absolute().parent
        if not folder.is_dir():
            self.fail(f"{value} cannot be written: there is no directory {folder}", param, ctx)
        if not path.exists() and not os.access(folder, os.W_OK | os.X_OK):
            self.fail(f"{value} cannot be written: this user may not write in {folder}", param, ctx)
        return path
