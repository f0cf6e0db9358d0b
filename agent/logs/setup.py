"""Logs: one JSON object a line for machines, one short line for a person at a terminal.

An event has a stable name and fields: `log_event(logger, "verdict.changed", trigger="errors", to="firing")`. Packages
below `agent` log it without this module: `logger.info("verdict.changed", extra={"fields": {"trigger": "errors"}})`.
A line of a library becomes the event `library`, with the text in its field `message`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

from agent.logs.library_levels import sane

LIBRARY = "library"
REPEAT_INTERVAL = 10.0
"""Seconds in which equal lines are written once."""
LIBRARY_INTERVAL = 60.0
"""The same for lines of libraries: while a topic is missing, aiokafka logs it 500 times a second."""
_LOOK_EVERY = 0.1
"""Seconds between checks for repeated lines that are due."""

_NOISY = ("faust", "mode", "aiokafka")
_OUR_OWN = ("agent", "streams", "detectors")


def log_event(logger: logging.Logger, event: str, /, *, level: int = logging.INFO, **fields: object) -> None:
    """Log `event` with `fields`; inside an `except` block at level ERROR or above, the traceback too."""
    failed = level >= logging.ERROR and sys.exc_info()[0] is not None
    logger.log(level, event, extra={"fields": fields}, exc_info=failed)


Words = Callable[[str, dict[str, Any]], str | None]
"""The sentence that a person reads for an event and its fields; None to show the fields themselves."""


def configure(
    level: str = "info", json: bool | None = None, stream: TextIO | None = None, words: Words | None = None
) -> None:
    """Send all logs to `stream` (stderr), as JSON or, by default on a terminal, as lines for a person.

    `words` puts events into sentences on those lines. May be called again; the last call counts. ValueError for an
    unknown `level`.
    """
    stream = stream or sys.stderr
    as_json = not stream.isatty() if json is None else json
    root = logging.getLogger()
    root.setLevel(level.upper())
    for handler in root.handlers[:]:
        if isinstance(handler, LineHandler):
            root.removeHandler(handler)
            handler.close()
    handler = LineHandler(stream)
    colour = stream.isatty() and "NO_COLOR" not in os.environ
    handler.setFormatter(JsonFormatter() if as_json else HumanFormatter(words, colour=colour))
    handler.addFilter(sane)
    root.addHandler(handler)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))
    logging.captureWarnings(True)


class JsonFormatter(logging.Formatter):
    """`time` (UTC), `level`, `logger`, `event`, then the event's fields; not-a-number becomes null."""

    def format(self, record: logging.LogRecord) -> str:
        event, fields = _event(record)
        moment = datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None)
        head = {
            "time": f"{moment.isoformat(timespec='milliseconds')}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": event,
        }
        # The head stands first and cannot be overwritten by a field of the same name.
        line = {**head, **fields, **head}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        try:
            return msgspec.json.encode(line, enc_hook=_plain).decode()
        except (TypeError, ValueError, RecursionError):
            # Lone surrogates, keys that are not strings, cycles: log a simpler line rather than none.
            return json.dumps({key: value if isinstance(value, str) else repr(value) for key, value in line.items()})


class HumanFormatter(logging.Formatter):
    """`12:30:05.120 INFO verdict.changed trigger=errors to=firing` in local time; tracebacks follow on lines below.

    If `words` has a sentence for an event, that is shown: `12:30:05.120 INFO production/new-cart: written, attempt 1`.
    """

    def __init__(self, words: Words | None = None, *, colour: bool = False) -> None:
        super().__init__()
        self._words = words
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        event, fields = _event(record)
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        said = self._words(event, fields) if self._words is not None else None
        words = [f"{clock}.{int(record.msecs):03d}", record.levelname]
        if said is not None:
            words += [said]
        else:
            words += [f"[{record.name}]", fields.pop("message")] if event == LIBRARY else [event]
            words += [f"{key}={_word(value)}" for key, value in fields.items() if not isinstance(value, dict)]
        lines = [" ".join(words)]
        if record.exc_info:
            lines += self.formatException(record.exc_info).split("\n")
        text = "\n".join(_printable(line) for line in lines)
        begin = _COLOURS.get(record.levelno) if self._colour else None
        return text if begin is None else f"{begin}{text}\x1b[0m"


_COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes a repeated line once in REPEAT_INTERVAL, a library's once in LIBRARY_INTERVAL, and at the end of a series.

    A series ends if the line does not come for REPEAT_INTERVAL. `repeated` counts the lines that one line stands for.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._clock = clock
        self._seen: dict[Hashable, _Seen] = {}
        self._looked = -math.inf

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._admits(record):
                super().emit(record)
        except Exception:
            # A log call with wrong arguments is shown on stderr; it must not raise in its caller.
            self.handleError(record)

    def tell(self) -> None:
        """Write the held lines that are due. Without this call they wait for the next line of any kind."""
        self.acquire()
        try:
            self._tell(self._clock())
        finally:
            self.release()

    def close(self) -> None:
        """Write the lines that are still held."""
        self.acquire()
        try:
            for seen in self._seen.values():
                self._emit_held(seen)
            self._seen.clear()
        finally:
            self.release()
        super().close()

    def _admits(self, record: logging.LogRecord) -> bool:
        now = self._clock()
        self._tell(now)
        key = _same_line(record)
        seen = self._seen.get(key)
        if seen is None:
            interval = LIBRARY_INTERVAL if _event(record)[0] == LIBRARY else REPEAT_INTERVAL
            self._seen[key] = _Seen(interval, now, now)
            return True
        seen.held = record
        seen.count += 1
        seen.last = now
        return False

    def _tell(self, now: float) -> None:
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        for key, seen in list(self._seen.items()):
            ended = now - seen.last >= REPEAT_INTERVAL
            if seen.held is not None and (ended or now - seen.written >= seen.interval):
                self._emit_held(seen)
                seen.written = seen.last = now
            elif ended:
                del self._seen[key]

    def _emit_held(self, seen: _Seen) -> None:
        if seen.held is not None:
            seen.held.__dict__["repeated"] = seen.count
            super().emit(seen.held)
            seen.held, seen.count = None, 0


@dataclass(slots=True)
class _Seen:
    """When a line was written, and how often and when it has come since; times are of the handler's clock."""

    interval: float
    written: float
    last: float
    held: logging.LogRecord | None = None
    count: int = 0


def tell_repeated() -> None:
    """Write the repeated lines that are due, such as the last of a series, even if nothing else is logged."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LineHandler):
            handler.tell()


def _event(record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
    fields = getattr(record, "fields", None)
    if isinstance(fields, dict) or record.name.partition(".")[0] in _OUR_OWN:
        event, fields = record.getMessage(), dict(fields or {})
    else:
        event, fields = LIBRARY, {"message": record.getMessage()}
    if "repeated" in record.__dict__:
        fields["repeated"] = record.__dict__["repeated"]
    return event, fields


def _same_line(record: logging.LogRecord) -> Hashable:
    event, fields = _event(record)
    if event == LIBRARY:
        # Lines of libraries that differ only in ports, offsets or times count as equal.
        return record.name, record.levelno, re.sub(r"\d+", "0", fields["message"])
    return record.name, record.levelno, event, repr(fields)


def _plain(value: object) -> object:
    tolist = getattr(value, "tolist", None)  # numpy's scalars and arrays
    return tolist() if tolist is not None else str(value)


_LONGEST_WORD = 300
"""Characters of a field on a person's line; JSON lines have all of it."""


def _word(value: object) -> str:
    text = str(value)
    text = text if len(text) <= _LONGEST_WORD else f"{text[:_LONGEST_WORD]}..."
    return text if re.fullmatch(r'[^\s"=]+', text) else json.dumps(text, ensure_ascii=False)


def _printable(text: str) -> str:
    """Escape control characters: a name from telemetry must neither break a line nor control the terminal."""
    return "".join(char if char.isprintable() else " " if char in "\n\r\t" else f"\\x{ord(char):02x}" for char in text)
