"""A fake of Firestore on a port of its own."""

from __future__ import annotations

from pathlib import Path

from agent.backends import settings
from agent.backends.contract import FlagBackend
from agent.backends.firestore.backend import FirestoreBackend
from agent.backends.firestore.document import Document, Write, value
from agent.fakes.firestore.server import FakeFirestore


class FirestorePlace:
    def __init__(self, directory: Path) -> None:
        self.fake = FakeFirestore()
        self.faults = self.fake.faults
        self.fake.put("new-checkout", "on")
        self.fake.put("other", "on")

    async def start(self) -> None:
        await self.fake.start()
        self.backend = self.another()

    async def stop(self) -> None:
        await self.fake.stop()

    def another(self) -> FlagBackend:
        return FirestoreBackend(settings.Firestore(project="shop", emulator=f"127.0.0.1:{self.fake.port}"))

    async def edit(self, variant: str) -> None:
        self.fake.put("new-checkout", variant)

    def put(self, definition: dict[str, object]) -> None:
        """Store any definition of the flag, as a person would."""
        document = Document(name="/documents/flags/new-checkout")
        for name, content in definition.items():
            document.fields[name].CopyFrom(value(content))
        self.fake._store.commit([Write(update=document)])

    async def edit_other_flag(self) -> None:
        self.fake.put("other", "off")

    async def content(self) -> object:
        return self.fake.flags()

    async def writes(self) -> int:
        return self.fake.writes
