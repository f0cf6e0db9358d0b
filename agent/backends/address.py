"""Checks of the addresses of flag systems: requests are encrypted, or do not leave this machine."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from agent.errors import ConfigError


def checked_url(kind: str, url: str) -> str:
    """Return the address of a server.

    Raises ConfigError if it is neither https nor on loopback, or holds credentials, which would appear in errors.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigError(f"{kind}: the address is no URL; expected one such as https://flags.example.org") from None
    if parts.scheme not in ("http", "https") or not host:
        # What contains an @ may contain a password in the wrong place, and is not shown.
        shown = "the value" if "@" in url else repr(url)
        raise ConfigError(f"{kind}: {shown} is no address; expected a URL such as https://flags.example.org")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"{kind}: the address of {host} holds credentials; they belong in a file of mode 0600")
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigError(f"{kind}: http://{host} is not encrypted, and not on loopback; use https")
    return url


def checked_state_url(url: str) -> str:
    """Return the address at which a webhook's flags are read.

    Raises ConfigError as `checked_url` does, or if it has no {flag}.
    """
    if "{flag}" not in checked_url("webhook", url):
        raise ConfigError("webhook: state_url has no {flag}; expected one such as https://flags.example.org/{flag}")
    return url


def database_host(text: str, *, emulated: bool) -> str:
    """Return the host of a Realtime Database's address. Raises ConfigError if it is no address of a database."""
    schemes = ("https", "http") if emulated else ("https",)
    form = "expected https://DATABASE.firebaseio.com or https://DATABASE.REGION.firebasedatabase.app, and no path"
    try:
        url = urlsplit(text)
        host = url.netloc
        plain = "@" not in host and url.port != 0 and url.path in ("", "/") and not url.query and not url.fragment
    except ValueError:
        raise ConfigError(f"the url of a Realtime Database is not valid; {form}") from None
    if url.scheme not in schemes:
        raise ConfigError(f"the url of a Realtime Database begins with {url.scheme or 'nothing'}://; {form}")
    if not url.hostname or not plain:
        raise ConfigError(f"the url of a Realtime Database names more or less than a server; {form}")
    return host


def emulator_address(emulator: str) -> str:
    """Return `emulator` unchanged. Raises ConfigError if it is no host:port of this machine.

    Requests to an emulator are neither encrypted nor authenticated, so they must not leave the machine.
    """
    host, _, port = emulator.rpartition(":")
    if not is_loopback(host.strip("[]")) or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(f"emulator {emulator!r}: expected host:port on loopback, such as 127.0.0.1:9000")
    return emulator


def is_loopback(host: str) -> bool:
    """Is this a name or an address of this machine?"""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
