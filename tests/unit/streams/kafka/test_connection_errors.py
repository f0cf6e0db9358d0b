"""A failed connection to the brokers is explained by its cause, with what to do."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import pytest
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from streams.errors import TopicError
from streams.kafka.connection_errors import cause, explained, reason
from streams.kafka.topics import describe

TLS: dict[str, Any] = {"security_protocol": "SSL", "ssl_context": ssl.create_default_context()}
USER: dict[str, Any] = {"sasl_mechanism": "PLAIN", "sasl_plain_username": "u", "sasl_plain_password": "p"}


def wrong_version() -> ssl.SSLError:
    error = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    error.reason = "WRONG_VERSION_NUMBER"
    return error


@pytest.mark.parametrize(
    ("error", "protocol", "said"),
    [
        (SaslAuthenticationFailed("Invalid username or password"), "SASL_SSL", "authentication failed"),
        (UnsupportedSaslMechanismError("Enabled mechanisms are: ['PLAIN']"), "SASL_SSL", "['PLAIN']"),
        (IllegalSaslStateError(), "SASL_PLAINTEXT", "the broker asks for no user at this port"),
        (wrong_version(), "SSL", "does the broker speak TLS at this port?"),
        (ConnectionRefusedError(111, "refused"), "PLAINTEXT", "nothing listens there"),
        (socket.gaierror(-2, "Name or service not known"), "SSL", "no such host"),
        (KafkaConnectionError("closed by peer"), "PLAINTEXT", "it expects TLS at this port, or a user"),
        (KafkaConnectionError("closed"), "SASL_PLAINTEXT", "it expects TLS at this port; see"),
        (KafkaConnectionError("closed"), "SSL", "or expects a user"),
        (TimeoutError(), "SSL", "does the broker speak TLS at this port?"),
        (TimeoutError(), "PLAINTEXT", "is it a broker"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)  # fmt: skip
def test_each_cause_has_words_of_its_own(error: Exception, protocol: str, said: str) -> None:
    assert said in explained(error, protocol)


def test_the_cause_behind_a_cause_is_found() -> None:
    try:
        try:
            raise ConnectionRefusedError(111, "refused")
        except OSError as refused:
            raise KafkaConnectionError("no connection") from refused
    except KafkaConnectionError as error:
        assert "nothing listens there" in explained(error, "PLAINTEXT")


def test_a_text_without_an_end_is_cut() -> None:
    assert len(explained(ValueError("x" * 10_000), "PLAINTEXT")) <= 300


async def test_where_nothing_listens_the_port_is_doubted_and_no_broker_s_word_made_up() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{free.getsockname()[1]}"
    settings = {"bootstrap_servers": [server]}
    assert (await cause(settings)).startswith(f"{server}: nothing listens there")
    with pytest.raises(TopicError, match="nothing listens there"):
        await describe([], settings)


@pytest.mark.parametrize(
    ("settings", "said"), [({}, "it expects TLS at this port, or a user"), (TLS, "speaks no TLS at this port")]
)
async def test_a_listener_that_closes_is_another_one_than_the_configuration_says(
    settings: dict[str, Any], said: str
) -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert said in await cause({"bootstrap_servers": [f"127.0.0.1:{port}"], **settings})


async def test_an_error_that_has_its_own_words_keeps_them() -> None:
    assert "no right" in await reason(ValueError("no right"), {})
