"""Explains why brokers cannot be reached, and which setting to change.

aiokafka raises the same "Unable to bootstrap" for every failed connection, and only logs the cause. So this module
connects once more, to each broker, and explains the error that it gets.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

WITHIN: Final = 3.0
"""Seconds for one broker to accept the connection and answer."""

_MOST_SERVERS = 3


async def reason(error: BaseException, connection: Mapping[str, Any]) -> str:
    """Why a request failed with `error`: what prevents a connection to the brokers, else the error itself."""
    # The error of a client that could not connect names no cause that a person can fix.
    why = await cause(connection) if isinstance(error, KafkaConnectionError | TimeoutError | OSError) else ""
    return why or repr(error)


async def cause(connection: Mapping[str, Any]) -> str:
    """What is wrong with the connection to each of the first three brokers; empty if all of them answer.

    `connection` are the keyword arguments of an aiokafka client.
    """
    hosts = collect_hosts(connection["bootstrap_servers"])[:_MOST_SERVERS]
    found = await asyncio.gather(*(_cause(host, port, connection) for host, port, _ in hosts))
    return "; ".join(dict.fromkeys(filter(None, found)))


async def _cause(host: str, port: int, connection: Mapping[str, Any]) -> str:
    settings = {name: value for name, value in connection.items() if name != "bootstrap_servers"}
    settings.setdefault("security_protocol", "PLAINTEXT")
    opened = None
    try:
        async with asyncio.timeout(WITHIN):
            opened = await create_conn(host, port, request_timeout_ms=int(1000 * WITHIN), **settings)
            await opened.send(MetadataRequest([]))
    except (KafkaError, OSError, TimeoutError, EOFError) as error:
        return f"{host}:{port}: {explained(error, settings['security_protocol'])}"
    finally:
        if opened is not None:
            with contextlib.suppress(KafkaError, OSError):
                opened.close()
    return ""


def explained(error: BaseException, protocol: str) -> str:
    """What is wrong and what to do; the client's `protocol` is PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""
    tls, sasl = protocol.endswith("SSL"), protocol.startswith("SASL")
    for one in _chain(error):
        if isinstance(one, SaslAuthenticationFailed):
            return "authentication failed: see kafka.security.username and password_file"
        if isinstance(one, UnsupportedSaslMechanismError):
            return f"the broker does not take this kafka.security.mechanism: {_bounded(one)}"
        if isinstance(one, IllegalSaslStateError):
            return "the broker asks for no user at this port: use its SASL port, or leave out kafka.security.mechanism"
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"the broker's certificate is not trusted ({one.verify_message}): see kafka.security.cafile"
        if isinstance(one, ssl.SSLError) and one.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
            return _PLAIN
        if isinstance(one, ssl.SSLError):
            return f"no TLS connection came about ({one.reason or _bounded(one)}): see certfile and cafile"
        if isinstance(one, socket.gaierror):
            return "no such host: see kafka.brokers"
        if isinstance(one, ConnectionRefusedError):
            return "nothing listens there: is a broker up, and is this its port? see kafka.brokers"
    if isinstance(error, TimeoutError):
        if tls:
            return f"no answer within {WITHIN:.0f} s; {_PLAIN}"
        return f"no answer within {WITHIN:.0f} s: is it a broker, and is the way to it open?"
    if isinstance(error, KafkaConnectionError | ConnectionError | EOFError):
        if not tls:
            user = "" if sasl else ", or a user (kafka.security.mechanism)"
            return f"the broker closed the connection: it expects TLS at this port{user}; see kafka.security"
        if not sasl:
            return (
                "the broker closed the connection: it speaks no TLS at this port (kafka.security.allow_plaintext), or "
                "expects a user (kafka.security.mechanism) or a certificate (certfile)"
            )
        return f"the broker closed the connection; {_PLAIN}"
    return _bounded(error)


_PLAIN = "does the broker speak TLS at this port? If it does not: kafka.security.allow_plaintext"


def _chain(error: BaseException) -> list[BaseException]:
    """An error and its causes, the root cause last."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in found:
        found.append(one)
        one = one.__cause__ or one.__context__
    return found


def _bounded(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:300]
