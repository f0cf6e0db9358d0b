"""The end of a process in bounded time, whatever still runs.

Faust and aiokafka wait for answers of the brokers when they stop, in threads of their own too: with a frozen broker for
ten minutes. Nothing is lost by ending them: what was read and not committed is read again, and the ledger holds every
step of a flip before it is made, as for a process that is killed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import NoReturn, Self

from agent.errors import FlipbackError
from agent.logs.setup import log_event

END_WITHIN = 1.5
"""Seconds: 3 are promised from SIGTERM to the end. Without load all has stopped after 0.5. With 20 busy processes on
its core a process took up to 0.6 to wake up, 0.2 for the last line, and up to 1.6 until the kernel had taken it down.
"""

_LOG_WITHIN = 0.3
"""Seconds that the last line gets: the reader of stderr may have stopped reading."""

_logger = logging.getLogger(__name__)


class Deadline:
    """Ends the process `within` seconds after `begin`, unless it has ended by itself.

    As a context manager it begins when the block is left, with the status of the error that it was left with.
    """

    def __init__(self, within: float = END_WITHIN) -> None:
        self._within = within
        self._begun = False
        self._error: BaseException | None = None
        self._waiting, self._go = os.pipe()
        # A thread of its own: the event loop may be what does not end, or the interpreter's wait for threads.
        threading.Thread(target=self._wait, name="deadline", daemon=True).start()

    def begin(self, error: BaseException | None = None) -> None:
        """Start to count; the first call decides. The exit status is 0, or the status of `error`.

        May be called in a handler of a signal: it takes no lock, which the code that was interrupted might hold.
        """
        if not self._begun:
            self._begun, self._error = True, error
            os.write(self._go, b".")

    def _wait(self) -> None:
        os.read(self._waiting, 1)
        time.sleep(self._within)
        self._end(self._error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.begin(error)

    def _end(self, error: BaseException | None) -> NoReturn:
        last = threading.Thread(target=self._tell, args=[error], daemon=True)
        last.start()
        last.join(_LOG_WITHIN)
        os._exit(_status(error))

    def _tell(self, error: BaseException | None) -> None:
        fields = {} if error is None else {"error": str(error) or repr(error)}
        level = logging.WARNING if error is None else logging.ERROR
        log_event(_logger, "run.cut-short", level=level, after=self._within, status=_status(error), **fields)
        logging.shutdown()


def end_on_signals(ending: Deadline, stop: asyncio.Event) -> Callable[..., None]:
    """At SIGTERM and SIGINT begin the end, and set `stop` in the running loop; returns what does so."""
    loop = asyncio.get_running_loop()

    def end(*_: object) -> None:
        # From the signal on, not from what it sets off: a start that waits for the brokers does not look at `stop`.
        ending.begin()
        # The loop is closed where the process is about to end: a second Ctrl-C is no error then.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        # Not a handler of the loop: on a busy machine the loop came to that 1.6 s later, or never where it was stuck.
        signal.signal(number, end)
    return end


def _status(error: BaseException | None) -> int:
    """As the command line has it for an end in time."""
    if error is None:
        return 0
    return error.exit_code if isinstance(error, FlipbackError) else FlipbackError.exit_code
