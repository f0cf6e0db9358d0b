"""The whole configuration as plain values: every default filled in, secrets in addresses masked."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from agent.config.model import Config
from agent.config.triggers import is_fast
from streams.settings import Seconds, WholeSeconds


def shown(config: Config) -> Any:
    """Return the configuration as values of JSON: durations as text, addresses without passwords and tokens.

    Written to a file, it is a configuration with the same rules.
    """
    return _plain(_filled(config))


def _filled(config: Config) -> Config:
    """Fill in what absent settings take from others. `min_samples: auto` stays: agent.config.summary has its number."""
    replace = msgspec.structs.replace
    flags = []
    for flag in config.flags:
        triggers = [
            replace(trigger, fast=is_fast(trigger), **config.trigger_times.of(trigger)._asdict())
            for trigger in flag.triggers
        ]
        flags.append(replace(flag, control=flag.control or flag.safe, triggers=triggers))
    keys = replace(config.keys, signing_key=config.signing_key, public_keys=config.public_keys)
    return replace(config, flags=flags, keys=keys)


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        fields = {info.encode_name: _plain(getattr(value, info.name)) for info in msgspec.structs.fields(type(value))}
        tag = type(value).__struct_config__
        return {str(tag.tag_field): tag.tag, **fields} if tag.tag_field else fields
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Seconds | WholeSeconds):
        return f"{value:.15g}s"
    if isinstance(value, Path):
        return str(value)
    return _without_secrets(str(value)) if isinstance(value, str) else value


def _without_secrets(text: str) -> str:
    """Mask the password and the query of an address, which may hold a token. Other text is returned unchanged."""
    parts = urlsplit(text)
    if not (parts.scheme and parts.netloc):
        return text
    host = parts.netloc.rpartition("@")[2]
    netloc = f"***@{host}" if "@" in parts.netloc else host
    return urlunsplit(parts._replace(netloc=netloc, query="***" if parts.query else ""))
