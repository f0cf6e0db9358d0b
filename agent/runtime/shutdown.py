"""The end of a process in bounded time, whatever still runs.

When Faust and aiokafka stop, they wait for answers of the brokers, also in threads: ten minutes if a broker is frozen.
Ending them early loses nothing, as if the process were killed: records that were read and not committed are read again,
and the ledger holds every step of a flip before it is made.
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
"""Seconds until the process is ended by force; the documented limit from SIGTERM to the end is 3.

Without load everything stops within 0.5 s. With 20 busy processes on its core, a process took up to 0.6 s to wake up,
0.2 s for the last line, and up to 1.6 s until the kernel had removed it.
"""

_LOG_WITHIN = 0.3
"""Seconds to write the last log line: the reader of stderr may have stopped reading."""

_logger = logging.getLogger(__name__)


class Deadline:
    """Ends the process `within` seconds after `begin`, unless it has ended by itself.

    As a context manager, it begins when the block is left; the exit status is that of the error that left it.
    """

    def __init__(self, within: float = END_WITHIN) -> None:
        self._within = within
        self._begun = False
        self._error: BaseException | None = None
        self._waiting, self._go = os.pipe()
        self._over = threading.Event()
        # Separate threads, because what hangs may be the event loop, or the interpreter waiting for its threads. Both
        # start now: Python 3.12 starts none while the interpreter waits for the last ones (CPython issue 113964).
        threading.Thread(target=self._wait, name="deadline", daemon=True).start()
        self._logging = threading.Thread(target=self._log_end, name="deadline-log", daemon=True)
        self._logging.start()

    def begin(self, error: BaseException | None = None) -> None:
        """Start the countdown; later calls do nothing. The exit status is 0, or the status of `error`.

        May be called in a signal handler: it takes no lock, because the interrupted code might hold it.
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
        self._over.set()
        self._logging.join(_LOG_WITHIN)
        os._exit(_status(error))

    def _log_end(self) -> None:
        self._over.wait()
        error = self._error
        fields = {} if error is None else {"error": str(error) or repr(error)}
        level = logging.WARNING if error is None else logging.ERROR
        log_event(_logger, "run.cut-short", level=level, after=self._within, status=_status(error), **fields)
        logging.shutdown()


def end_on_signals(ending: Deadline, stop: asyncio.Event) -> Callable[..., None]:
    """On SIGTERM and SIGINT, begin `ending` and set `stop` in the running loop; returns the handler."""
    loop = asyncio.get_running_loop()

    def end(*_: object) -> None:
        # Count from the signal on: a start that waits for the brokers does not look at `stop`.
        ending.begin()
        # The loop is closed if the process is about to end: a second Ctrl-C is no error then.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        # Not `loop.add_signal_handler`: on a busy machine the loop ran it 1.6 s late, and a stuck loop never did.
        signal.signal(number, end)
    return end


def _status(error: BaseException | None) -> int:
    """The exit status that the command line gives to an end in time."""
    if error is None:
        return 0
    return error.exit_code if isinstance(error, FlipbackError) else FlipbackError.exit_code
