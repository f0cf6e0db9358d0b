"""Finds what would stop a flip in a flagd file, or keep applications from seeing it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from agent.backends.contract import BackendHealth, FlagRef
from agent.backends.flagd.disk import obstacles
from agent.backends.flagd.text import FlagdDocument, all_to
from agent.backends.shown import some
from agent.errors import BackendError


class FlagdFileCopy(NamedTuple):
    """The file as it was read: `path` after following links, and its `stat`."""

    path: Path
    document: FlagdDocument
    stat: os.stat_result

    @property
    def identity(self) -> str:
        return f"{self.stat.st_ino}:{self.stat.st_mtime_ns}:{self.stat.st_size}"


def check_flips(copy: FlagdFileCopy, wanted: Sequence[tuple[FlagRef, str]]) -> BackendHealth:
    """Check flips of these flags to these variants against the file as it was read."""
    problems = list(obstacles(copy.path, copy.stat))
    for ref, target in wanted:
        try:
            copy.document.check(ref.flag, all_to(copy.document.definition(ref.flag), target))
        except BackendError as error:
            problems.append(str(error))
    # A flip mends an error in the flag's own definition. It matters only if it hides flips of other managed flags.
    flags = {ref.flag for ref, _ in wanted}
    refused = why_unseen(copy.document, next(iter(flags)) if len(flags) == 1 else None)
    doubts = copy.document.doubts()
    if copy.stat.st_nlink > 1:
        doubts.append("it has another name too (a hard link), under which a flip is not seen")
    warnings = (f"{copy.document.where}: {some(doubts)}",) if doubts else ()
    return BackendHealth((*problems, *filter(None, [refused])), warnings)


def why_unseen(document: FlagdDocument, but: str | None = None) -> str:
    """Say why readers refuse this file, without the flag `but`; empty if no reason is known."""
    refused = document.refused(but)
    if not refused:
        return ""
    return (
        f"{document.where}: {some(refused)}: readers refuse the whole file for that and keep the copy that they have, "
        "so that no flip in it is seen; mend it"
    )
