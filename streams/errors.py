"""Exceptions of streams. A bad record raises none: it is counted as rejected, with a reason.

StreamsError
├── LayoutError           a columnar batch does not follow its format
├── PartialError          a record of the partials topic cannot be read
├── CheckpointError       a checkpoint cannot be read, or is too large to be written
├── ClockError            verdicts were made while this machine's clock was wrong
├── TopicError            a topic cannot be created or described
└── DriftUnavailable      drift detection is configured, but its library is not installed

A message states what is wrong, where, what was expected and what to do.
"""

from __future__ import annotations


class StreamsError(Exception):
    """Root of the errors of streams."""


class LayoutError(StreamsError):
    pass


class PartialError(StreamsError):
    pass


class CheckpointError(StreamsError):
    pass


class ClockError(StreamsError):
    """Verdicts were made while this machine's clock was wrong."""


class TopicError(StreamsError):
    pass


class DriftUnavailable(StreamsError):
    pass
