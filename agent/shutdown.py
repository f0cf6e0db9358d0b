"""The end of a process in bounded time, whatever still runs.

Faust and aiokafka wait for answers of the brokers when they stop, in threads of their own too: with a frozen broker for
ten minutes. Nothing is lost by ending them: what was read and not committed is read again, and the ledger holds every
step of a flip before it is made, as for a process that is killed.
"""

from __future__ import annotations

import logging
import os
import threading
from types import TracebackType
from typing import NoReturn, Self

from agent.errors import FlipbackError
from agent.logs import log_event

END_WITHIN = 2.5
"""Seconds: 3 are promised from SIGTERM to the end, and the log has to be written."""

_LOG_WITHIN = 0.3
"""Seconds that the last line gets: whoever reads our stderr may have stopped reading."""

_logger = logging.getLogger(__name__)


class Deadline:
    """Ends the process `within` seconds after `begin`, unless it has ended by itself.

    As a context manager it begins when the block is left, with the status of the error that it was left with.
    """

    def __init__(self, within: float = END_WITHIN) -> None:
        self._within = within
        self._timer: threading.Timer | None = None

    def begin(self, error: BaseException | None = None) -> None:
        """Start to count; the first call decides. The exit status is 0, or the status of `error`."""
        if self._timer is None:
            # A thread of its own: the event loop may be what does not end, or the interpreter's wait for threads.
            self._timer = threading.Timer(self._within, self._end, [error])
            self._timer.daemon = True
            self._timer.start()

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


def _status(error: BaseException | None) -> int:
    """As the command line has it for an end in time."""
    if error is None:
        return 0
    return error.exit_code if isinstance(error, FlipbackError) else FlipbackError.exit_code
