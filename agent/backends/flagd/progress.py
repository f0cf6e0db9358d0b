"""How far work in another thread has come, so that it can be stopped before it changes anything, and only then."""

from __future__ import annotations

import threading

from agent.errors import Unsent


class WorkProgress:
    """`deadline`, in seconds of `time.monotonic()`, is when the work gives up. It says in `doing` what it is at."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.doing = "waiting for a thread: the machine or the disk is busy"
        self._lock = threading.Lock()
        self._stopped = False
        self._committed = False

    def commit(self, stopped: str) -> None:
        """From here on something changes. Raises Unsent, which says `stopped`, where nobody waits for it any more."""
        with self._lock:
            if self._stopped:
                raise Unsent(stopped)
            self._committed = True

    def stop(self) -> bool:
        """Let the work come to nothing: False where it may have changed something already."""
        with self._lock:
            self._stopped = not self._committed
            return self._stopped
