"""The progress of work in another thread, which can be stopped until it changes something, and not later."""

from __future__ import annotations

import threading

from agent.errors import Unsent


class WorkProgress:
    """The progress of one piece of work.

    The work gives up at `deadline`, in seconds of `time.monotonic()`, and sets `doing` to its current step.
    """

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.doing = "waiting for a thread: the machine or the disk is busy"
        self._lock = threading.Lock()
        self._stopped = False
        self._committed = False

    def commit(self, stopped: str) -> None:
        """Mark that the work changes something from here on. Raises Unsent(`stopped`) if it was stopped before."""
        with self._lock:
            if self._stopped:
                raise Unsent(stopped)
            self._committed = True

    def stop(self) -> bool:
        """Stop the work before it changes anything; return False if it may have changed something already."""
        with self._lock:
            self._stopped = not self._committed
            return self._stopped
