"""Credentials for Google's flag systems: looked up once, with a token that is renewed before a flip needs it.

The credentials are the key file or workload identity that the settings name, else the application default credentials
(the service account that is attached to the machine, or the file that GOOGLE_APPLICATION_CREDENTIALS names).
"""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.backends.http import Headers
from agent.backends.secret_file import check_secret_file
from agent.errors import Auth, ConfigError, Transient

RENEW_BEFORE = 600.0
"""Seconds before its expiry at which a token is renewed in the background; Google's tokens are valid for an hour."""

EMULATORS = (
    "FIRESTORE_EMULATOR_HOST",
    "FIREBASE_DATABASE_EMULATOR_HOST",
    "FIREBASE_REMOTE_CONFIG_EMULATOR_HOST",
    "FIREBASE_EMULATOR_HUB",
)


def refuse_emulators(environ: Mapping[str, str] = os.environ) -> None:
    """Raise ConfigError if a variable of an emulator is set: Google's clients would silently write there.

    Only `emulator` in the settings of a backend selects an emulator.
    """
    found = [name for name in EMULATORS if environ.get(name)]
    if found:
        raise ConfigError(
            f"{found[0]} is set: flags would be written to an emulator; unset it, or name the emulator in the "
            "backend's settings: `emulator: host:port`"
        )


class GoogleToken:
    """The access token of one set of credentials. Its repr shows no secret.

    Raises ConfigError at once if the key file cannot be used. Application default credentials are looked up at the
    first use, in a thread, because a request for the machine's account can take seconds.
    """

    def __init__(self, path: Path | None, scopes: Sequence[str]) -> None:
        self._path = path
        self._scopes = list(scopes)
        self._credentials: Any = None if path is None else _from_file(path, self._scopes)
        self._lookup: asyncio.Task[Any] | None = None
        self._renewal: asyncio.Task[None] | None = None

    async def credentials(self) -> Any:
        """Return the google.auth credentials. Raises Auth if none are found."""
        if self._credentials is None:
            if self._lookup is None or self._lookup.done():
                self._lookup = asyncio.create_task(asyncio.to_thread(_default, self._scopes))
                # Retrieves the exception, which asyncio would otherwise log; the next call starts another lookup.
                self._lookup.add_done_callback(lambda task: task.cancelled() or task.exception())
            # Shielded: a lookup that outlasts this call's deadline serves the next call.
            self._credentials = await asyncio.shield(self._lookup)
        return self._credentials

    async def headers(self, deadline: float, renew: bool = False) -> Headers:
        """Return the Authorization header. A token that expires soon is renewed in the background, without a wait."""
        credentials = await self.credentials()
        left = _left(credentials)
        if renew or left <= 0:
            await asyncio.shield(self._renewing(credentials))
        elif left < RENEW_BEFORE:
            # If the renewal fails, a later request renews again, and raises its error once the token has expired.
            self._renewing(credentials).add_done_callback(lambda task: task.cancelled() or task.exception())
        return {"Authorization": f"Bearer {credentials.token}"}

    async def close(self) -> None:
        for task in (self._lookup, self._renewal):
            if task is not None:
                task.cancel()

    def _renewing(self, credentials: Any) -> asyncio.Task[None]:
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(asyncio.to_thread(_refresh, credentials))
        return self._renewal

    def __repr__(self) -> str:
        return f"GoogleToken({self._path or 'application default credentials'})"


def _from_file(path: Path, scopes: list[str]) -> Any:
    import google.auth
    from google.auth.exceptions import GoogleAuthError

    check_secret_file(path)
    try:
        with warnings.catch_warnings():
            # google-auth warns that a file from an untrusted source may be of any kind; only its owner can write this.
            warnings.simplefilter("ignore", DeprecationWarning)
            credentials, _ = google.auth.load_credentials_from_file(str(path), scopes=scopes)  # type: ignore[no-untyped-call]
    except (GoogleAuthError, ValueError):
        # Without the cause: the parser's message may quote the content.
        raise ConfigError(f"{path} holds no credentials of a service account or workload identity") from None
    return credentials


def _default(scopes: list[str]) -> Any:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        credentials, _ = google.auth.default(scopes=scopes)
    except DefaultCredentialsError:
        raise Auth(
            "no application default credentials were found; attach a service account to the machine, or name a key "
            "file: `credentials: FILE`"
        ) from None
    return credentials


def _refresh(credentials: Any) -> None:
    from google.auth.exceptions import RefreshError, TransportError
    from google.auth.transport.requests import Request

    from agent.backends.bounded_session import MOST_BYTES, AnswerTooLarge, BoundedSession

    try:
        with BoundedSession() as session:
            credentials.refresh(Request(session))
    except RefreshError as error:
        kind = Transient if getattr(error, "retryable", False) else Auth
        raise kind("Google refused a new token for these credentials; is the account enabled, the key valid?") from None
    except TransportError as error:
        large = isinstance(error.__cause__, AnswerTooLarge)
        what = f"gave an answer of more than {MOST_BYTES:,} bytes" if large else "cannot be reached"
        raise Transient(f"Google's token service {what}") from None
    except Exception as error:
        raise Transient(f"Google's token service gives no token that can be read ({type(error).__name__})") from None


def _left(credentials: Any) -> float:
    """Return the seconds until the token expires; 0 if there is none."""
    if not credentials.token:
        return 0.0
    if credentials.expiry is None:
        return RENEW_BEFORE
    return float((credentials.expiry.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds())
