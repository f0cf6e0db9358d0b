"""What commands may do: make the managed flags safe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agent.backends.contract import FlagRef
from agent.commands.command import Command, Reason, Rejection


@dataclass(frozen=True, slots=True)
class ManagedFlag:
    """A flag that commands may make safe.

    `safe` is its safe variant; `together` names the flags of the same environment that are made safe with it.
    """

    flag: str
    environment: str
    service: str
    backend: str
    safe: str
    together: tuple[str, ...] = ()

    @property
    def ref(self) -> FlagRef:
        return FlagRef(self.flag, self.environment)


class AllowList:
    """The managed flags. A flag may be watched in several services."""

    def __init__(self, flags: Iterable[ManagedFlag]) -> None:
        self._flags: dict[FlagRef, list[ManagedFlag]] = {}
        for flag in flags:
            self._flags.setdefault(flag.ref, []).append(flag)

    def __getitem__(self, ref: FlagRef) -> ManagedFlag:
        """Return the flag. Raises KeyError if it is not managed."""
        return self._flags[ref][0]

    def group(self, command: Command) -> list[FlagRef]:
        """Return the flags of the command's incident: the one whose trigger fired, then those that are grouped with it.

        A person's order is for one flag.
        """
        origin = FlagRef(command.origin.flag, command.environment)
        if command.by_hand:
            return [origin]
        together = self._flags[origin][0].together if origin in self._flags else ()
        return [origin, *(FlagRef(name, command.environment) for name in together)]

    def refusal(self, command: Command) -> Rejection | None:
        """Return why the command is not allowed at any time, if so."""
        managed = self._flags.get(FlagRef(command.flag, command.environment))
        if managed is None:
            return Rejection(Reason.UNKNOWN_FLAG, "the flag is not managed in this environment")
        if command.service not in {flag.service for flag in managed}:
            return Rejection(Reason.WRONG_SERVICE, f"the flag is not managed for service {command.service!r}")
        if command.backend != managed[0].backend:
            return Rejection(Reason.WRONG_BACKEND, f"the flag is kept in {managed[0].backend!r}")
        if command.target != managed[0].safe:
            return Rejection(Reason.WRONG_STATE, f"the flag's safe state is {managed[0].safe!r}")
        if FlagRef(command.flag, command.environment) not in self.group(command):
            return Rejection(Reason.WRONG_GROUP, f"the flag is not made safe together with {command.origin.flag!r}")
        return None
