"""Why readers of a flagd file refuse it, and what a file is instead if it is no flagd file.

The readers are flagd (core/pkg/evaluator/json.go) and openfeature-provider-flagd 0.6.1 in file mode
(openfeature-flagd-core, model/flag.py). If they refuse a file, they keep their last copy: a flip in such a file is
written, but no application sees it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agent.backends.shown import listed, shown

_MEMBERS = {"state", "variants", "defaultVariant", "targeting", "metadata", "source", "selector"}
_WANTED = 'flipback edits flagd files in JSON: {"flags": {"KEY": {"state": ..., "variants": ...}}}'
_BOMS = ((b"\xef\xbb\xbf", "UTF-8"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
_YAML = re.compile(r"(?:---|#|['\"]?\$?\w[\w.$-]*['\"]?[ \t]*:(?:[ \t\r\n]|$))")


def refused(value: object) -> str | None:
    """Return why a reader refuses the whole file because of the definition of one flag, None if none does."""
    if not isinstance(value, dict):
        return "it is no object"
    if value.get("state") not in ("ENABLED", "DISABLED"):
        return f'its state is {shown(value.get("state"))}, neither "ENABLED" nor "DISABLED"'
    variants = value.get("variants")
    if not isinstance(variants, dict) or not variants:
        return "it has no variants"
    default = value.get("defaultVariant")
    if default is not None and (not isinstance(default, str) or (default and default not in variants)):
        return f"its defaultVariant {shown(default)} is none of its variants ({listed(variants)})"
    return _refused_metadata(value.get("metadata"))


def refused_file(top: Mapping[str, Any]) -> list[str]:
    """Return why a reader refuses the file because of its members other than the flags."""
    found = []
    if "metadata" in top and not isinstance(top["metadata"], dict):
        found.append("the file's metadata is no object")
    elif (broken := _refused_metadata(top.get("metadata"))) is not None:
        found.append(f"the file: {broken}")
    if top.get("$evaluators") and not isinstance(top["$evaluators"], dict):
        found.append("the file's $evaluators are no object")
    return found


def doubted(value: object) -> str | None:
    """Return why only some readers refuse the file: openfeature-provider-flagd accepts no unknown members."""
    unknown = sorted(value.keys() - _MEMBERS) if isinstance(value, dict) else []
    return f"openfeature-provider-flagd knows no member {listed(unknown)}, and refuses the file" if unknown else None


def unreadable(content: bytes, where: str, error: ValueError) -> str:
    """Say why a file is no JSON, what it is instead if that can be recognised, and what to do."""
    prefix = f"{where} cannot be used: "
    for mark, name in _BOMS:
        if content.startswith(mark):
            return (
                f"{prefix}it begins with a byte order mark of {name}, which JSON forbids; save it as UTF-8 without one"
            )
    if isinstance(error, UnicodeDecodeError):
        return f"{prefix}byte {error.start} is no UTF-8; save it as UTF-8"
    text = content.decode()
    start = text.lstrip()
    if not start:
        return f"{prefix}it is empty; {_WANTED}"
    if start.startswith(("//", "/*")) or re.search(r"^\s*(?://|/\*)", text, re.MULTILINE):
        return f"{prefix}it has comments, which JSON forbids ({error}); delete them"
    if not start.startswith(("{", "[")) and (_YAML.match(start) or where.endswith((".yaml", ".yml"))):
        return f"{prefix}it is YAML, which flipback does not edit; keep the flags in JSON, which flagd reads too"
    return f"{prefix}as JSON: {error}"


def no_flags(top: Mapping[str, Any], where: str) -> str:
    """Say why a JSON file has no flags."""
    if top.get("kind") == "FeatureFlag" or "flagSpec" in top.get("spec", ()):
        return (
            f"{where} is a FeatureFlag resource of OpenFeature Operator, which flipback does not edit; give it a file "
            f"that flagd reads: {_WANTED}"
        )
    if isinstance(top.get("flags"), list):
        return f"{where} has its flags in an array, which flipback does not edit; write them as a map. {_WANTED}"
    return f'{where} has no object "flags" at its top; {_WANTED}'


def _refused_metadata(metadata: object) -> str | None:
    if not metadata:
        return None
    if not isinstance(metadata, dict):
        return "its metadata is no object"
    for name, content in metadata.items():
        if not name or not isinstance(content, bool | int | float | str):
            return f"its metadata {shown(name)} is neither text, number nor boolean"
    return None
