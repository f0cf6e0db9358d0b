"""Flags are looked at as often as their backend says, at once where it tells of a change, each backend by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agent.backends.contract import BackendHealth, FlagBackend, FlagRef, FlagState
from agent.commands.keys import generate
from agent.config.load import load
from agent.errors import ConfigError, Timeout, Transient
from agent.events.cloudevents import Event
from agent.executor import flag_poller as looking_module
from agent.executor import service as flips_module
from agent.executor.build import make_backends
from agent.executor.service import Flips
from agent.ledger.automation import Automation
from agent.state.flags import FlagStatus
from tests.support.fake_backend import FakeBackend

CONFIG = """
apiVersion: flipback/v1
kafka: {brokers: [127.0.0.1:9092]}
telemetry: [{topic: requests, format: json}]
backends:
  a: {kind: flagd-file, path: a.json}
  b: {kind: flagd-file, path: b.json}
flags:
  - {flag: a, service: shop, backend: a, safe: "off", triggers: [{name: e, when: error_rate > 2%}]}
  - {flag: b, service: shop, backend: b, safe: "off", triggers: [{name: e, when: error_rate > 2%}]}
"""


class Slow(FakeBackend):
    """A backend that is to be looked at every `every` seconds."""

    def __init__(self, every: float) -> None:
        super().__init__()
        self.capabilities = replace(self.capabilities, read_every=every)
        self.hanging = False

    async def read(self, ref: FlagRef, *, deadline: float) -> FlagState:
        if self.hanging:
            self.calls.append("read")
            await self._hang(deadline)
        return await super().read(ref, deadline=deadline)

    async def health(self, wanted: Sequence[tuple[FlagRef, str]], *, deadline: float) -> BackendHealth:
        if self.hanging:
            # Worse than the contract allows: it does not keep its deadline.
            await asyncio.Event().wait()
        return BackendHealth(("is closed",))


class Pushing(Slow):
    """A backend that tells of changes; `failures` are raised by the first calls to follow."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__(every=3600.0)
        self.failures = failures
        self.followed = 0
        self.changed: Callable[[FlagRef], None] | None = None

    async def follow(self, refs: Sequence[FlagRef], changed: Callable[[FlagRef], None]) -> None:
        self.followed += 1
        if self.followed <= self.failures:
            raise Transient("stream closed")
        self.changed = changed
        await asyncio.Event().wait()


class Watched:
    """`Flips` over two backends, watching; what it publishes, by flag."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, a: FakeBackend, b: FakeBackend) -> None:
        (directory / "flipback.yaml").write_text(CONFIG)
        made: dict[str, FlagBackend] = {"a": a, "b": b}
        monkeypatch.setattr(flips_module, "make_backends", lambda config: made)
        config = load(directory / "flipback.yaml")
        self.published: list[FlagStatus] = []
        self.told: list[Event] = []
        generate(config.state_dir)
        self.flips = Flips(config, self._emit)
        self.state_dir = config.state_dir

    async def _emit(self, event: Event) -> None:
        self.told.append(event)

    async def publish(self, status: FlagStatus) -> None:
        self.published.append(status)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.005)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.flips.watch(self.publish))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            await self.flips.close()

    def variants(self, flag: str) -> list[str | None]:
        return [status.variant for status in self.published if status.flag == flag]


async def test_a_backend_that_hangs_does_not_delay_looking_at_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = Slow(0.01), Slow(0.01)
    a.hanging = True
    watched = Watched(tmp_path, monkeypatch, a, b)
    async with watched.running():
        # The first read of a is still under way.
        await watched.until(lambda: b.calls.count("read") >= 5)
        assert a.calls.count("read") == 1
        b.edit("off")
        await watched.until(lambda: watched.variants("b") == ["on", "off"])
        assert watched.variants("a") == []


async def test_a_flag_that_cannot_be_read_is_named_until_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = Slow(0.01)
    a.faults["read"] = [Timeout("no answer")] * 3
    watched = Watched(tmp_path, monkeypatch, a, Slow(0.01))
    async with watched.running():
        await watched.until(lambda: bool(watched.flips.unreadable()))
        assert watched.flips.unreadable() == ["production/a: no answer"]
        await watched.until(lambda: watched.variants("a") == ["on"])
        assert watched.flips.unreadable() == []


async def test_each_backend_is_looked_at_as_often_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    often, seldom = Slow(0.01), Slow(3600.0)
    watched = Watched(tmp_path, monkeypatch, often, seldom)
    async with watched.running():
        await watched.until(lambda: often.calls.count("read") >= 20)
        assert seldom.calls.count("read") == 1


async def test_what_a_backend_tells_of_is_looked_at_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pushing = Pushing()
    watched = Watched(tmp_path, monkeypatch, pushing, Slow(3600.0))
    async with watched.running():
        await watched.until(lambda: pushing.changed is not None and watched.variants("a") == ["on"])
        assert pushing.changed is not None
        for variant in ("off", "on"):
            pushing.edit(variant)
            pushing.changed(FlagRef("a", "production"))
            await watched.until(lambda variant=variant: watched.variants("a")[-1] == variant)  # type: ignore[misc]
    assert watched.variants("a") == ["on", "off", "on"]


async def test_following_that_fails_is_taken_up_again_and_looking_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking_module, "_FOLLOW_AGAIN", (0.01, 0.02))
    pushing = Pushing(failures=3)
    watched = Watched(tmp_path, monkeypatch, pushing, Slow(3600.0))
    async with watched.running():
        await watched.until(lambda: pushing.changed is not None and watched.variants("a") == ["on"])
    assert pushing.followed == 4


async def test_a_failure_to_publish_is_that_flags_problem_and_looking_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(tmp_path, monkeypatch, Slow(0.01), Slow(0.01))
    publish, broken = watched.publish, True

    async def fails(status: FlagStatus) -> None:
        if broken and status.flag == "a":
            raise ZeroDivisionError
        await publish(status)

    monkeypatch.setattr(watched, "publish", fails)
    async with watched.running():
        await watched.until(lambda: bool(watched.flips.unreadable()) and watched.variants("b") == ["on"])
        (problem,) = watched.flips.unreadable()
        assert "ZeroDivisionError" in problem
        broken = False
        await watched.until(lambda: watched.flips.unreadable() == [])


async def test_what_would_stop_a_flip_is_heard_of_all_backends_although_one_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flips_module, "_CHECK_BUDGET", 0.05)
    a, b = Slow(1.0), Slow(1.0)
    a.hanging = True
    watched = Watched(tmp_path, monkeypatch, a, b)
    assert await watched.flips.check() == ["backend a: no answer within 0.1 s", "backend b: is closed"]
    await watched.flips.close()


async def test_an_error_that_no_backend_should_raise_is_that_backends_problem_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, sound = Slow(0.01), Slow(0.01)

    async def fails(*_: object, **__: object) -> FlagState:
        raise UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "of an endpoint")

    watched = Watched(tmp_path, monkeypatch, broken, sound)
    with monkeypatch.context() as patch:
        patch.setattr(broken, "read", fails)
        patch.setattr(broken, "health", fails)
        async with watched.running():
            await watched.until(lambda: sound.calls.count("read") >= 3 and bool(watched.flips.unreadable()))
            (problem,) = watched.flips.unreadable()
            assert "production/a: an error of flipback in backend a" in problem
            assert "of an endpoint" in problem
            found = await watched.flips.check()
            assert any("backend a: an error of flipback: UnicodeDecodeError" in one for one in found)
            patch.undo()
            await watched.until(lambda: watched.flips.unreadable() == [])
    await watched.flips.close()


async def test_a_halt_is_among_what_would_stop_a_flip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(tmp_path, monkeypatch, FakeBackend(), FakeBackend())
    assert await watched.flips.check() == []
    automation = Automation(watched.state_dir)
    with automation.locked():
        automation.halt("database is down", by="ann", at=time.time())
    (problem,) = await watched.flips.check()
    assert "halted by ann: database is down" in problem
    assert "flipback resume" in problem
    await watched.flips.close()


@pytest.mark.parametrize(
    "real",
    [
        "kind: firestore, project: p",
        "kind: rtdb, url: 'https://p.firebaseio.com'",
        "kind: remote-config, project: p",
    ],
)
def test_a_variable_of_an_emulator_is_refused_where_a_backend_is_the_real_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real: str
) -> None:
    monkeypatch.setenv("FIREBASE_DATABASE_EMULATOR_HOST", "127.0.0.1:9000")
    (tmp_path / "flipback.yaml").write_text(CONFIG.replace("kind: flagd-file, path: a.json", real))
    with pytest.raises(ConfigError, match="FIREBASE_DATABASE_EMULATOR_HOST"):
        make_backends(load(tmp_path / "flipback.yaml"))


async def test_a_variable_of_an_emulator_stops_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIREBASE_DATABASE_EMULATOR_HOST", "127.0.0.1:9000")
    (tmp_path / "flipback.yaml").write_text(CONFIG)
    for backend in make_backends(load(tmp_path / "flipback.yaml")).values():
        await backend.close()


@pytest.mark.parametrize("at_once", [1, 3, 50])
async def test_as_many_flags_are_read_at_a_time_as_the_backend_says_and_each_once_a_round(at_once: int) -> None:
    backend = FakeBackend()
    backend.capabilities = replace(backend.capabilities, read_every=3600.0, reads_at_once=at_once)
    refs = [FlagRef(f"f{number}", "production") for number in range(20)]
    under_way, most, read = 0, 0, []
    done = asyncio.Event()

    async def look(flag: str, environment: str) -> FlagStatus:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        read.append(flag)
        if flag == "f7":
            # One that cannot be read holds up none of those that come after it.
            raise Timeout("no answer")
        return FlagStatus(flag=flag, environment=environment, version="v", variant="on", safe=False, at=0.0)

    async def seen(status: FlagStatus) -> None:
        if len(read) == len(refs):
            done.set()

    looking = looking_module.FlagPoller("a", backend, refs, look)
    task = asyncio.create_task(looking.run(seen))
    async with asyncio.timeout(60):
        await done.wait()
    task.cancel()
    assert sorted(read) == sorted(ref.flag for ref in refs)
    assert most == min(at_once, len(refs))
    assert list(looking.failing) == [FlagRef("f7", "production")]
