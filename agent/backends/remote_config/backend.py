"""Firebase Remote Config: a parameter for each flag.

A boolean parameter has the variants on and off; for other types the values are the variants.

A publication replaces the whole template, on condition that nobody has published since it was read. If somebody has,
the template is read again, and published if the flag's own parameter still has the expected version.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from agent.backends import settings as config
from agent.backends.contract import (
    BackendHealth,
    Capabilities,
    Cas,
    FlagRef,
    FlagState,
    Granularity,
    Outcome,
    ReadBack,
    Snapshot,
    Verdict,
    WriteResult,
)
from agent.backends.google import refuse_emulators
from agent.backends.remote_config.api import Api, TemplateCopy, Version
from agent.backends.remote_config.parameter import ParameterDefinition, all_to, doubt, parameter_name, percent_to, state
from agent.backends.remote_config.template import MOST_DESCRIPTION, Template
from agent.errors import BackendError, Invalid, NotFound, Throttled, Timeout, Unsupported, nothing_sent

_ATTEMPTS = 5
"""How many times a publication is tried while somebody else publishes in between."""
_DRY_RUN_EVERY = 300.0
"""Seconds until a successful dry run is repeated although nothing has changed: a permission may have been revoked."""

Edit = Callable[[Template, ParameterDefinition], ParameterDefinition]


class _Publication(NamedTuple):
    """The last publication that was sent: when (`time.monotonic()`), and the version number that it replaces."""

    at: float
    replaces: int


class RemoteConfigBackend:
    """A backend of one template. It ignores the environment: each has a project, and so a backend, of its own."""

    capabilities = Capabilities(
        cas=Cas.NATIVE,
        percent=True,
        atomic_ledger=True,
        push=False,
        granularity=Granularity.TEMPLATE,
        read_every=10.0,
    )

    def __init__(self, settings: config.RemoteConfig) -> None:
        if settings.emulator is None:
            refuse_emulators()
        self._api = Api(settings)
        self._parameters = settings.parameters
        # Sources disagree on whether a server template can be published by the API at all.
        note = "; it may be that this server template cannot be published by its API"
        self._server_note = note if settings.template == "server" else ""
        self._publish_every = settings.publish_every
        self._cached: TemplateCopy | None = None
        self._published: _Publication | None = None
        self._tried: tuple[int, tuple[tuple[FlagRef, str], ...], float] | None = None

    async def read(self, ref: FlagRef, *, deadline: float) -> FlagState:
        return state((await self._current(deadline)).template.definition(self._name(ref)))

    async def snapshot(self, ref: FlagRef, *, deadline: float) -> Snapshot:
        template = (await self._get(deadline)).template
        found = state(template.definition(self._name(ref)))
        return Snapshot(flag=ref.flag, environment=ref.environment, state=found, identity=str(template.number))

    async def apply(self, ref: FlagRef, target: str, *, expect: str, op_id: str, deadline: float) -> WriteResult:
        return await self._edit(
            ref, lambda _, old: all_to(old, target), f"flip {op_id}", f"{ref.flag} to {target}", expect, deadline
        )

    async def verify(self, snapshot: Snapshot, target: str, *, op_id: str, deadline: float) -> ReadBack:
        template = (await self._get(deadline)).template
        before, found = ParameterDefinition.of(snapshot.state.raw), template.definition(self._name(snapshot.ref))
        now = state(found)
        if _is_flipped(before, target, found):
            return ReadBack(Verdict.LANDED, now)
        if now.version != snapshot.state.version:
            return ReadBack(Verdict.OTHER, now)
        since = int(snapshot.identity)
        if template.number == since:
            return ReadBack(Verdict.UNTOUCHED, now)
        # The parameter is as before, in another template: others published, or a person undid this operation.
        versions = [*await self._api.versions(deadline=deadline), _own(template)]
        never_done = _covers(versions, since, template.number) and not _done(versions, f"flip {op_id}")
        return ReadBack(Verdict.UNTOUCHED if never_done else Verdict.OTHER, now)

    async def restore(self, snapshot: Snapshot, *, expect: str, op_id: str, deadline: float) -> WriteResult:
        before = ParameterDefinition.of(snapshot.state.raw)
        return await self._edit(
            snapshot.ref, lambda _, old: before, f"restore {op_id}", snapshot.flag, expect, deadline
        )

    async def set_percent(
        self, ref: FlagRef, variant: str, rest: str, percent: float, *, expect: str, op_id: str, deadline: float
    ) -> WriteResult:
        def edit(template: Template, old: ParameterDefinition) -> ParameterDefinition:
            return percent_to(old, self._name(ref), template.condition, variant, rest, percent)

        what = f"{ref.flag} to {variant} for {percent:g} %"
        return await self._edit(ref, edit, f"percent {op_id}", what, expect, deadline)

    async def health(self, wanted: Sequence[tuple[FlagRef, str]], *, deadline: float) -> BackendHealth:
        copy = await self._current(deadline)
        problems = self._shared_parameters(wanted)
        definitions, doubts = {}, []
        for ref, target in dict.fromkeys(wanted):
            name = self._name(ref)
            try:
                old = copy.template.definition(name)
                definitions[name] = new = all_to(old, target)
                variant = state(new).variant
                if (unknown := doubt(old, target)) is not None:
                    doubts.append(f"flag {ref.flag!r}: {unknown}")
                if variant != target:
                    problems.append(
                        f"flag {ref.flag!r}: {target!r} is read back as {variant!r}; write {variant} instead"
                    )
            except BackendError as error:
                problems.append(f"flag {ref.flag!r}: {error}")
        try:
            await self._dry_run(copy, definitions, tuple(wanted), deadline)
        except Timeout:
            raise
        except (Invalid, NotFound) as error:
            problems.append(f"a dry run was refused: {error}{self._server_note}")
        except BackendError as error:
            problems.append(f"a dry run was refused: {error}")
        return BackendHealth(tuple(problems), tuple(doubts))

    async def close(self) -> None:
        await self._api.close()

    def _name(self, ref: FlagRef) -> str:
        return self._parameters.get(ref.flag) or parameter_name(ref.flag)

    def _shared_parameters(self, wanted: Sequence[tuple[FlagRef, str]]) -> list[str]:
        """Return a problem for each flag whose parameter is that of an earlier flag."""
        first: dict[str, str] = {}
        return [
            f"flags {first[name]!r} and {ref.flag!r} are both parameter {name!r}; name theirs under `parameters`"
            for ref, _ in wanted
            if first.setdefault(name := self._name(ref), ref.flag) != ref.flag
        ]

    async def _current(self, deadline: float) -> TemplateCopy:
        """Return the template as it is now, from the copy in memory if its version is still the newest.

        A template has up to 1 MB, and 3,000 parameters take 25 ms to parse; a request for the newest version number is
        cheaper.
        """
        cached = self._cached
        if cached is not None:
            newest = await self._api.versions(1, deadline=deadline)
            if newest and newest[0].number == cached.template.number:
                return cached
        return await self._get(deadline)

    async def _get(self, deadline: float) -> TemplateCopy:
        known = None if self._cached is None else self._cached.template
        self._cached = copy = await self._api.get(known, deadline=deadline)
        return copy

    async def _dry_run(
        self,
        copy: TemplateCopy,
        definitions: dict[str, ParameterDefinition],
        wanted: tuple[tuple[FlagRef, str], ...],
        deadline: float,
    ) -> None:
        """Make a dry run of a publication that makes all flags safe, unless the same one succeeded a while ago."""
        now = time.monotonic()
        if self._tried is not None:
            number, flags, at = self._tried
            if (number, flags) == (copy.template.number, wanted) and now - at < _DRY_RUN_EVERY:
                return
        body = copy.template.replaced(definitions, "a dry run of flipback")
        # False if somebody published in between: the next check tries again.
        if await self._api.dry_run(body, copy.etag, deadline=deadline):
            self._tried = copy.template.number, wanted, now

    async def _edit(
        self, ref: FlagRef, edit: Edit, operation: str, what: str, expect: str, deadline: float
    ) -> WriteResult:
        """Publish the edited parameter if its version is `expect`, unless the history has this operation.

        The operation and `what` it does are the description of the template's new version.
        """
        name = self._name(ref)
        description = f"flipback {operation}: {what}"[:MOST_DESCRIPTION]
        for attempt in range(_ATTEMPTS):
            # Nothing was written before this read: it is the first one, or follows a publication that was refused.
            with nothing_sent():
                copy, versions = await self._with_history(deadline)
            old = copy.template.definition(name)
            new = edit(copy.template, old)
            done = _done(versions, operation)
            # On the first attempt nothing was sent: if the flag is as wanted, this operation need not have done it.
            if new == old and not (done and attempt):
                return WriteResult(Outcome.ALREADY, state(old))
            if done:
                return WriteResult(Outcome.DUPLICATE, state(old), "the history has this operation")
            if old.version != expect:
                return WriteResult(Outcome.CONFLICT, state(old), f"version is {old.version}, expected {expect}")
            body = copy.template.replaced({name: new}, description)
            if await self._publish(copy, body, deadline):
                return WriteResult(Outcome.APPLIED, state(new))
        raise Throttled(f"others published {_ATTEMPTS} times in between; nothing was written")

    async def _with_history(self, deadline: float) -> tuple[TemplateCopy, list[Version]]:
        """Return the template and a history that is not older. Both are requested at once, to save a flip's time."""
        copy, versions = await asyncio.gather(self._get(deadline), self._api.versions(deadline=deadline))
        if all(version.number < copy.template.number for version in versions):
            versions = await self._api.versions(deadline=deadline)
        return copy, [*versions, _own(copy.template)]

    async def _publish(self, copy: TemplateCopy, body: bytes, deadline: float) -> bool:
        """Publish; return False if somebody else published in between. Raises Throttled if the last was too recent."""
        last, now = self._published, time.monotonic()
        # If the version that the last publication was to replace is still the newest, it did not land: do not count it.
        if last is not None and last.replaces != copy.template.number:
            rest = last.at + self._publish_every - now
            if rest > 0:
                raise Throttled(f"one publication in {self._publish_every:g} s is allowed", rest)
        self._published = _Publication(now, copy.template.number)
        published = await self._api.publish(body, copy.etag, deadline=deadline)
        if not published:
            self._published = last
        return published


def _is_flipped(before: ParameterDefinition, target: str, found: ParameterDefinition) -> bool:
    """Is the parameter as a flip to the target leaves it?"""
    try:
        return all_to(before, target).same_parameter(found)
    except (Invalid, Unsupported):
        return False


def _done(versions: Sequence[Version], operation: str) -> bool:
    return any(version.description.startswith(f"flipback {operation}:") for version in versions)


def _covers(versions: Sequence[Version], since: int, newest: int) -> bool:
    """Does the history have every version after `since`, up to `newest`?"""
    return {version.number for version in versions}.issuperset(range(since + 1, newest + 1))


def _own(template: Template) -> Version:
    """Return the version that a template itself names; the list of versions may have it only later."""
    return Version(template.number, template.description)
