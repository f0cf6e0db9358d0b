"""A flag system for each backend, for the contract suite, the fault suite and the chaos tests.

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
"""`module:class` by the kind of the backend, with a suffix for variants of a system."""


class Place(Protocol):
    """A flag system with the flag `new-checkout` (variants on and off, on for all) and another flag.

    `faults` injects faults into a fake; it is None for a real system. `another` makes another backend of the same
    system, as another process would; its caller closes it.
    """

    backend: FlagBackend
    faults: FakeFaults | None

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def another(self) -> FlagBackend: ...

    async def edit(self, variant: str) -> None:
        """Give `variant` to every subject, as a person would; the flag need not have had it before."""
        ...

    async def edit_other_flag(self) -> None: ...

    async def content(self) -> object:
        """Return everything that is stored of the flags, for comparison, without the operation that wrote it."""
        ...

    async def writes(self) -> int:
        """Return how many writes backends have committed since the start."""
        ...


@asynccontextmanager
async def place(kind: str, directory: Path) -> AsyncIterator[Place]:
    """Make a flag system for one test; its backend is closed at the end."""
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
