"""Where each backend keeps its flags in the tests: what the contract suite, the fault suite and the chaos tests run on.

A new backend is a module here with a `Place`, and an entry in `PLACES`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Protocol

from agent.backends.contract import FlagBackend, FlagRef
from agent.fakes.faults import FakeFaults
from tests.support.places import live

REF = FlagRef("new-checkout", "production")
ABSENT = FlagRef("absent", "production")

PLACES: dict[str, str] = {
    "flagd-file": "tests.support.places.flagd_file:FlagdFilePlace",
    "firestore": "tests.support.places.firestore:FirestorePlace",
    "rtdb": "tests.support.places.rtdb:RealtimeDatabasePlace",
    "remote-config": "tests.support.places.remote_config:RemoteConfigPlace",
    "remote-config-server": "tests.support.places.remote_config:RemoteConfigServerPlace",
    "unleash": "tests.support.places.unleash:UnleashPlace",
    "webhook": "tests.support.places.webhook:WebhookPlace",
}
"""`module:class` by the kind of the backend, with what is different about the place."""


class Place(Protocol):
    """A flag system that holds `new-checkout` (variants on and off, on for all) and another flag.

    `faults` orders faults of a fake, None where the system is real. `another` makes one more backend of the same
    system, as another process has it; who makes it closes it.
    """

    backend: FlagBackend
    faults: FakeFaults | None

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def another(self) -> FlagBackend: ...

    async def edit(self, variant: str) -> None:
        """A person gives `variant` to every subject; it may be one that the flag did not have."""
        ...

    async def edit_other_flag(self) -> None: ...

    async def content(self) -> object:
        """All that is stored of the flags, to be compared; what says who wrote last is left out."""
        ...

    async def writes(self) -> int:
        """How many writes have been committed by backends since the start."""
        ...


@asynccontextmanager
async def place(kind: str, directory: Path) -> AsyncIterator[Place]:
    """A flag system for one test, with a backend that is closed at its end."""
    made: Place
    if kind.startswith(live.PREFIX):
        made = live.LivePlace(kind.removeprefix(live.PREFIX))
    else:
        module, _, name = PLACES[kind].partition(":")
        made = getattr(import_module(module), name)(directory)
    await made.start()
    try:
        yield made
    finally:
        await made.backend.close()
        await made.stop()
