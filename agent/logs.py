"""Logs: one JSON object a line for machines, one short line for a person at a terminal.

An event has a stable name and fields: `log_event(logger, "verdict.changed", trigger="errors", to="firing")`. Packages
below `agent` write it without this module: `logger.info("verdict.changed", extra={"fields": {"trigger": "errors"}})`.
What a library logs becomes the event `library` with the text as its field `message`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

from agent.library_levels import sane

LIBRARY = "library"
REPEAT_INTERVAL = 10.0
"""Seconds in which equal lines are written once: with its broker down, aiokafka writes 120 error lines a second."""

_NOISY = ("faust", "mode", "aiokafka")
_OUR_OWN = ("agent", "streams", "detectors")


def log_event(logger: logging.Logger, event: str, /, *, level: int = logging.INFO, **fields: object) -> None:
    """Log `event` with `fields`; inside an `except` block at level ERROR or above, the traceback too."""
    failed = level >= logging.ERROR and sys.exc_info()[0] is not None
    logger.log(level, event, extra={"fields": fields}, exc_info=failed)


Words = Callable[[str, dict[str, Any]], str | None]
"""What a person reads of an event with its fields; None where it is shown as its fields."""


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
            # Lone surrogates, keys that are no strings, cycles: a line in another form is better than none.
            return json.dumps({key: value if isinstance(value, str) else repr(value) for key, value in line.items()})


class HumanFormatter(logging.Formatter):
    """`12:30:05.120 INFO verdict.changed trigger=errors to=firing` in local time; tracebacks follow on lines below.

    With `words` an event that has some is a sentence: `12:30:05.120 INFO production/new-cart: written, attempt 1`.
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
    """Writes a line that repeats once in REPEAT_INTERVAL; the next one says in `repeated` how many it stands for."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._clock = clock
        self._seen: OrderedDict[Hashable, _Seen] = OrderedDict()  # by time of expiry, the interval being constant

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._admits(record):
                super().emit(record)
        except Exception:
            # A call with wrong arguments is a bug to be shown on stderr, not to be raised where something is logged.
            self.handleError(record)

    def close(self) -> None:
        """Write what is still held back."""
        self.acquire()
        try:
            for seen in self._seen.values():
                if seen.held is not None:
                    self._emit_held(seen.held, seen.count)
            self._seen.clear()
        finally:
            self.release()
        super().close()

    def _admits(self, record: logging.LogRecord) -> bool:
        now = self._clock()
        while self._seen and (first := next(iter(self._seen.values()))).until <= now:
            key, _ = self._seen.popitem(last=False)
            if first.held is not None:
                self._emit_held(first.held, first.count)
                self._seen[key] = _Seen(now + REPEAT_INTERVAL)
        key = _same_line(record)
        seen = self._seen.get(key)
        if seen is None:
            self._seen[key] = _Seen(now + REPEAT_INTERVAL)
            return True
        seen.held = record
        seen.count += 1
        return False

    def _emit_held(self, record: logging.LogRecord, count: int) -> None:
        record.__dict__["repeated"] = count
        super().emit(record)


@dataclass(slots=True)
class _Seen:
    until: float
    held: logging.LogRecord | None = None
    count: int = 0


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
        # Libraries put ports, offsets and times into their texts.
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
    """Telemetry is written by others: a name must neither break a line nor command the terminal."""
    return "".join(char if char.isprintable() else " " if char in "\n\r\t" else f"\\x{ord(char):02x}" for char in text)
