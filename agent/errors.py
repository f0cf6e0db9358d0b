"""Exceptions of the agent, and the exit status of each.

A refused command is no exception: it is an outcome with a reason (agent.commands.command).

FlipbackError            exit status 1
├── ConfigError          3  the configuration or a file that it names cannot be used
│   └── KeyFileError        a signing key cannot be used
├── MalformedEvent       1  a record of the event log is no event of flipback
├── LedgerError          1  the durable record of the flips cannot be read or written
├── RestoreRefused       5  an incident's snapshot is not put back
└── BackendError         4  a flag backend did not do what was asked
    ├── Conflict            the flag is not the one that was judged
    ├── Throttled           the backend asks to try again later, see `retry_after`
    ├── Transient           may pass; a write may have landed
    │   ├── Unsent          the write was not sent, so nothing was written
    │   └── Failed          the answer says that the write failed: it cannot land later
    ├── Timeout             no answer by the deadline; a write may have landed
    ├── Ambiguous           it is not known whether a write landed, and waiting does not help
    ├── Auth                the backend does not accept the credentials
    ├── Permission          the account is not allowed to do this
    ├── NotFound            no such flag, or no such file, collection or project
    ├── Invalid             the flag's definition, or the one to be written, is not valid
    ├── Unforeseen          an exception that no backend should raise; a write may have landed
    └── Unsupported         the backend cannot do this at all

Messages say what, where, what was expected and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class FlipbackError(Exception):
    """Root of the agent's errors; the command line ends with `exit_code`."""

    exit_code = 1


class ConfigError(FlipbackError):
    exit_code = 3


class KeyFileError(ConfigError):
    pass


class MalformedEvent(FlipbackError):
    pass


class LedgerError(FlipbackError):
    pass


class RestoreRefused(FlipbackError):
    exit_code = 5


class BackendError(FlipbackError):
    exit_code = 4


class Conflict(BackendError):
    """A precondition of the write did not hold: somebody else wrote, or this operation was written before."""


class Throttled(BackendError):
    """`retry_after` is in seconds; None if the backend did not say."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Transient(BackendError):
    pass


class Unsent(Transient):
    pass


class Failed(Transient):
    pass


class Timeout(BackendError):
    pass


class Ambiguous(BackendError):
    pass


class Auth(BackendError):
    """The credentials were not accepted; renewed ones may be."""


class Permission(BackendError):
    """The credentials were accepted and do not allow this."""


class NotFound(BackendError):
    pass


class Invalid(BackendError):
    pass


class Unforeseen(BackendError):
    pass


class Unsupported(BackendError):
    pass


@contextmanager
def nothing_sent() -> Iterator[None]:
    """Raise Unsent instead of Transient or Timeout, for requests before a write: nothing was written yet."""
    try:
        yield
    except Unsent:
        raise
    except (Transient, Timeout) as error:
        raise Unsent(f"{error}; nothing was written") from error
