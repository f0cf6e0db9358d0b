"""The exceptions that reading foreign bytes may raise.

They are not in streams.errors, which the command line imports before anything else.
"""

from __future__ import annotations

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)
"""What msgspec raises for foreign bytes. It raises RecursionError if they nest a thousand deep, even in unknown
fields."""
