"""The processes of a test run share one server: the first that needs it starts it, and it ends when the last leaves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.support.together import together

# The locks belong to open files, not to processes, so threads exclude each other as processes do.
PATIENCE_S = 60


class Servers:
    """Records how many servers were started, and which of them are alive."""

    def __init__(self) -> None:
        self.started = 0
        self.living: set[str] = set()

    @contextmanager
    def serving(self, directory: Path) -> Iterator[str]:
        self.started += 1
        # A server takes a while to start, so that a second process would start another one meanwhile.
        time.sleep(0.1)
        name = f"{directory.name}-{self.started}"
        self.living.add(name)
        yield name
        self.living.remove(name)


class User:
    """A process that uses the server from its start until `leave`."""

    def __init__(self, pool: ThreadPoolExecutor, directory: Path, servers: Servers) -> None:
        self.found: Future[str] = Future()
        self.leaving, self._servers = threading.Event(), servers
        self.left = pool.submit(self._use, directory)

    def _use(self, directory: Path) -> bool:
        with together(directory, self._servers.serving) as found:
            self.found.set_result(found)
            assert self.leaving.wait(PATIENCE_S)
            return found in self._servers.living

    def leave(self) -> bool:
        """End this process; returns whether the server lived until then."""
        self.leaving.set()
        return self.left.result(PATIENCE_S)


Start = Callable[[], User]


@pytest.fixture
def servers() -> Servers:
    return Servers()


@pytest.fixture
def start(servers: Servers, tmp_path: Path) -> Iterator[Start]:
    users: list[User] = []
    with ThreadPoolExecutor(8) as pool:

        def started() -> User:
            users.append(User(pool, tmp_path / "kafka", servers))
            return users[-1]

        yield started
        for user in users:
            user.leaving.set()


def test_all_that_start_at_once_have_one_server(start: Start, servers: Servers) -> None:
    users = [start() for _ in range(6)]
    assert {user.found.result(PATIENCE_S) for user in users} == {"kafka-1"}
    assert servers.started == 1


def test_the_server_lives_until_the_last_has_left_even_if_who_started_it_leaves_first(
    start: Start, servers: Servers
) -> None:
    first = start()
    first.found.result(PATIENCE_S)
    second = start()
    second.found.result(PATIENCE_S)
    first.leaving.set()
    assert not wait([first.left], timeout=0.2).done
    third = start()
    assert third.found.result(PATIENCE_S) == "kafka-1"
    assert second.leave()
    assert third.leave()
    first.left.result(PATIENCE_S)
    assert servers.living == set()


def test_who_comes_after_the_end_has_a_new_server(start: Start, servers: Servers) -> None:
    assert start().leave()
    late = start()
    assert late.found.result(PATIENCE_S) == "kafka-2"
    assert late.leave()


def test_a_server_that_did_not_start_is_tried_again_by_the_next(tmp_path: Path, servers: Servers) -> None:
    def failing(directory: Path) -> AbstractContextManager[str]:
        raise OSError("no memory")

    with pytest.raises(OSError, match="no memory"), together(tmp_path, failing):
        pass
    with together(tmp_path, servers.serving) as found:
        assert found in servers.living
