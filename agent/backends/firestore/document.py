"""A flag as a Firestore document: the members of a flagd definition are its fields; it may have other fields too.

`state`, `variants`, `defaultVariant` and `metadata` are stored unchanged. Firestore cannot store an array within an
array, which a `fractional` rule and most other rules have: `targeting` is a map if that can hold the rule, else the
rule's JSON text. An application reads both forms:

    rule = json.loads(targeting) if isinstance(targeting, str) else targeting

If `targeting` is text, it stays text, even as `{}`, for applications that read only text. Only `state`,
`defaultVariant` and `targeting` are ever written; all other fields stay unchanged.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from google.cloud.firestore_v1 import types

from agent.backends import flag_definition
from agent.backends.contract import FlagRef, FlagState
from agent.errors import Invalid

MEMBERS = ("state", "variants", "defaultVariant", "targeting", "metadata")
"""The fields of the definition. A change of any other field, such as a counter, is no new version."""
WRITTEN = ("state", "defaultVariant", "targeting")
"""The fields that a flip, a percentage and a restore change."""

Definition = dict[str, Any]

# The plain protobuf messages: proto-plus would wrap every access to a field.
Document = types.Document.pb()
Value = types.Value.pb()
Write = types.Write.pb()


def definition(document: Any) -> Definition:
    """Return the definition in a document, as it is stored. Raises Invalid if it could not be restored exactly."""
    for name in WRITTEN:
        if name in document.fields and not _is_json(document.fields[name]):
            raise Invalid(f"{document.name}: the field {name} has a type that JSON lacks, and cannot be restored")
    try:
        return {name: plain(document.fields[name]) for name in MEMBERS if name in document.fields}
    except ValueError:
        # For example a timestamp out of range, which protobuf cannot write as text.
        raise Invalid(f"{document.name}: a field holds a value that cannot be read") from None


def raw(definition: Definition) -> str:
    """Return the definition as text, with sorted names: fields in a map have no order."""
    return json.dumps(definition, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def version(definition: Definition) -> str:
    """Return a hash of the definition: the same definition always has the same version."""
    return hashlib.sha256(raw(definition).encode()).hexdigest()[:16]


def state(definition: Definition) -> FlagState:
    """Return what subjects get by the definition."""
    meant = meaning(definition)
    return FlagState(
        variant=flag_definition.variant(meant),
        percent=flag_definition.percent(meant),
        version=version(definition),
        raw=raw(definition),
    )


def meaning(definition: Definition) -> Definition:
    """Return the flagd definition, with `targeting` decoded if it is stored as JSON text; other text stays as it is."""
    targeting = definition.get("targeting")
    if not isinstance(targeting, str):
        return definition
    try:
        return {**definition, "targeting": json.loads(targeting)}
    except (ValueError, RecursionError):
        return definition


def all_to(definition: Definition, target: str) -> Definition:
    """Return the definition that gives every subject `target`. Raises Invalid if it would not be valid."""
    safe = flag_definition.variant(meaning(definition)) == target
    return _checked(definition if safe else _edited(definition, flag_definition.all_to(target)))


def percent_to(definition: Definition, variant: str, rest: str, percent: float) -> Definition:
    """Return the definition that gives `percent` of the subjects `variant` and the others `rest`.

    Raises Unsupported if the flag has rules of another kind, which would be lost.
    """
    return _checked(_edited(definition, flag_definition.percent_to(meaning(definition), variant, rest, percent)))


def changes(old: Definition, new: Definition) -> tuple[list[str], Any]:
    """Return the fields in which two definitions differ, and a document with their values in `new`.

    A field that is missing in that document is deleted by the update.
    """
    names = [name for name in WRITTEN if (name in old, old.get(name)) != (name in new, new.get(name))]
    return names, Document(fields={name: value(new[name]) for name in names if name in new})


def update(name: str, update_time: Any, fields: Sequence[str], changed: Any) -> Any:
    """Return the write of some fields, on condition that the document has this update time.

    Without fields the write changes nothing.
    """
    changed.name = name
    return Write(update=changed, update_mask={"field_paths": fields}, current_document={"update_time": update_time})


def record(name: str, ref: FlagRef, old: Definition, new: Definition, by: str) -> Any:
    """Return the write of an operation's record, on condition that it does not exist; `at` is the commit's time."""
    members = {"flag": ref.flag, "environment": ref.environment, "previous": raw(old), "new": raw(new), "by": by}
    return Write(
        update=Document(name=name, fields={key: value(content) for key, content in members.items()}),
        update_transforms=[{"field_path": "at", "set_to_server_value": "REQUEST_TIME"}],
        current_document={"exists": False},
    )


def plain(value: Any) -> Any:
    """Convert a Firestore value to a JSON value; types that JSON does not have become text."""
    match value.WhichOneof("value_type"):
        case "map_value":
            return {name: plain(member) for name, member in value.map_value.fields.items()}
        case "array_value":
            return [plain(member) for member in value.array_value.values]
        case "timestamp_value":
            return value.timestamp_value.ToJsonString()
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case "geo_point_value":
            return f"{value.geo_point_value.latitude},{value.geo_point_value.longitude}"
        case "double_value" if not math.isfinite(value.double_value):
            return str(value.double_value)
        case None | "null_value":
            return None
        case kind:
            return getattr(value, kind)


def value(plain: Any) -> Any:
    """Convert a JSON value to a Firestore value. Raises Invalid if Firestore cannot store it."""
    match plain:
        case None:
            return Value(null_value=0)
        case bool():
            return Value(boolean_value=plain)
        case int() if -(2**63) <= plain < 2**63:
            return Value(integer_value=plain)
        case int() | float():
            return Value(double_value=plain)
        case str():
            return Value(string_value=plain)
        case Mapping():
            return Value(map_value={"fields": {name: value(member) for name, member in plain.items()}})
        case list() if not any(isinstance(member, list) for member in plain):
            return Value(array_value={"values": [value(member) for member in plain]})
    raise Invalid("Firestore holds no array within an array")


def _edited(old: Definition, wanted: Mapping[str, object]) -> Definition:
    """Set members. A member that already has the meaning keeps its spelling; an empty one is not added."""
    new, meant = dict(old), meaning(old)
    for name, content in wanted.items():
        if meant.get(name, {}) == content:
            continue
        text = name == "targeting" and (isinstance(old.get(name), str) or not _fits(content))
        new[name] = json.dumps(content) if text else content
    return new


def _checked(definition: Definition) -> Definition:
    broken = flag_definition.problem(meaning(definition))
    if broken:
        raise Invalid(broken)
    return definition


def _fits(content: object) -> bool:
    try:
        value(content)
    except Invalid:
        return False
    return True


def _is_json(value: Any) -> bool:
    match value.WhichOneof("value_type"):
        case "map_value":
            return all(map(_is_json, value.map_value.fields.values()))
        case "array_value":
            return all(map(_is_json, value.array_value.values))
        case "double_value":
            return math.isfinite(value.double_value)
        case "timestamp_value" | "bytes_value" | "geo_point_value" | "reference_value":
            return False
    return True
