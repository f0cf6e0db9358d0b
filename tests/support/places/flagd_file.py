"""A flagd file in a directory of the test's own."""

from __future__ import annotations

import json
from pathlib import Path

from agent.backends import settings
from agent.backends.contract import FlagBackend
from agent.backends.flagd.backend import FlagdFileBackend
from agent.fakes.faults import FakeFaults


class FlagdFilePlace:
    faults: FakeFaults | None = None

    def __init__(self, directory: Path) -> None:
        self._path = directory / "flags.json"
        flag = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"}
        self._write({"flags": {"new-checkout": flag, "other": {**flag, "targeting": {"if": [True, "on", "off"]}}}})
        self._begun = self._path.stat().st_ino
        self.backend = self.another()

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    def another(self) -> FlagBackend:
        return FlagdFileBackend(settings.FlagdFile(path=self._path))

    async def edit(self, variant: str) -> None:
        value = self._read()
        value["flags"]["new-checkout"]["defaultVariant"] = variant
        self._write(value)

    def put(self, definition: dict[str, object]) -> None:
        """Store any definition of the flag, as a person would."""
        value = self._read()
        value["flags"]["new-checkout"] = definition
        self._write(value)

    async def edit_other_flag(self) -> None:
        value = self._read()
        value["flags"]["other"]["defaultVariant"] = "off"
        self._write(value)

    async def content(self) -> object:
        return self._path.read_bytes()

    async def writes(self) -> int:
        # A backend replaces the file, unlike the edits above. Two writes count as one here, so tests also check the
        # outcomes.
        return int(self._path.stat().st_ino != self._begun)

    def _read(self) -> dict[str, dict[str, dict[str, object]]]:
        value: dict[str, dict[str, dict[str, object]]] = json.loads(self._path.read_text())
        return value

    def _write(self, value: object) -> None:
        self._path.write_text(json.dumps(value, indent=2))
