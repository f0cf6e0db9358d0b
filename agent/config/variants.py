"""Detects triggers of variants that the flag does not have: a misspelt variant never gets a sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from agent.backends.shown import nearest
from agent.config.flags import Flag


def variants_of(raw: str) -> frozenset[str] | None:
    """Return the names of the variants in a flag's definition; None if it does not list them, as flagd's does."""
    try:
        definition = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return None
    variants = definition.get("variants") if isinstance(definition, dict) else None
    return frozenset(variants) if isinstance(variants, dict) and variants else None


def unknown_variants(flags: Iterable[Flag], raw: str) -> Iterator[str]:
    """Yield a sentence for each trigger that judges, or compares with, a variant that the flag's definition lacks.

    `flags` are the entries of one flag, `raw` is its definition as it was read.
    """
    known = variants_of(raw)
    if known is None:
        return
    for flag in flags:
        if flag.control is not None and flag.control not in known:
            yield f"control is {flag.control!r}, which the flag does not have: it has {nearest(flag.control, known)}"
        for trigger in flag.triggers:
            variant = trigger.when.condition.variant
            if variant is not None and variant not in known:
                yield (
                    f"trigger {trigger.name!r} judges variant {variant!r}, which the flag does not have: it has "
                    f"{nearest(variant, known)}"
                )
