"""An executor with limits and many flags, each in its own backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.backends.contract import FlagRef
from agent.commands.command import Cause, Command, sign
from agent.events.cloudevents import Event, from_kafka, to_kafka
from agent.executor.executor import Executor
from agent.executor.limits import FlipRate
from agent.executor.result import ExecutionResult
from agent.executor.settings import FlipPace, Permissions
from agent.ledger.automation import Automation
from agent.ledger.ledger import Ledger
from agent.state.allowlist import ManagedFlag
from agent.state.flags import FlagWatch
from tests.support.fake_backend import FakeBackend
from tests.support.pace import AMPLE
from tests.unit.agent.executor.test_executor import KEY, command

WITHIN = 600.0


class Fleet:
    """Flags f0, f1, ... of one environment; `groups` gives the companions of some of them."""

    def __init__(
        self,
        directory: Path,
        size: int,
        most: int,
        *,
        groups: Mapping[str, Sequence[str]] | None = None,
        backends: Mapping[str, FakeBackend] | None = None,
        watch: FlagWatch | None = None,
        now: float = 1001.0,
    ) -> None:
        self.names = [f"f{n}" for n in range(size)]
        self.backends = dict(backends or {name: FakeBackend() for name in self.names})
        self.directory = directory
        self.most = most
        self.groups = groups or {}
        self.now = now
        self.told: list[Event] = []
        self.watch = watch or FlagWatch()
        self.ledger = Ledger(directory / "ledger")
        self.automation = Automation(directory)
        flags = [
            ManagedFlag(name, "production", "shop", name, "off", tuple(self.groups.get(name, ())))
            for name in self.names
        ]
        self.executor = Executor(
            Permissions(flags, self.backends, {KEY.id: KEY.public}),
            self.ledger,
            self.automation,
            FlipPace(FlipRate(most, WITHIN), cooldown_s=0.0, budget_s=AMPLE.whole_s),
            watch=self.watch,
            emit=self._emit,
            now=lambda: self.now,
        )
        # So that a busy machine does not count as a slow disk.
        self.executor._disk._limit_s = 30.0

    def reborn(self) -> Fleet:
        """A new process on the same disk, which knows the published states of the flags."""
        return Fleet(
            self.directory,
            len(self.names),
            self.most,
            groups=self.groups,
            backends=self.backends,
            watch=self.watch,
            now=self.now,
        )

    async def _emit(self, event: Event) -> None:
        _, value, headers = to_kafka(event)
        self.told.append(from_kafka(value, headers))

    def command(self, name: str, *, of: str | None = None, trigger: str = "errors") -> Command:
        """The command for the newest known version of a flag; `of` is the flag whose trigger fired, if another one."""
        cause = None if of in (None, name) else Cause(flag=str(of), flag_version=self.version(str(of)))
        return command(
            flag=name, backend=name, flag_version=self.version(name), issued_at=self.now, trigger=trigger, cause=cause
        )

    def version(self, name: str) -> str:
        status = self.watch.current(FlagRef(name, "production"))
        return "g1-v-on" if status is None else status.version

    async def flip(self, name: str, *, of: str | None = None, trigger: str = "errors") -> ExecutionResult:
        return await self.executor.execute(sign(self.command(name, of=of, trigger=trigger), KEY))

    @property
    def written(self) -> list[str]:
        """The flags that were written, each as often as it was, in the order of their names."""
        return [name for name in self.names for _ in self.backends[name].writes]

    def of(self, kind: str) -> list[Event]:
        """The events of a type, without repetitions."""
        return list({event.id: event for event in self.told if event.type == kind}.values())
