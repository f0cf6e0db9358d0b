"""How to connect to the brokers: one description for Faust's apps and for plain aiokafka clients."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any

import faust
from yarl import URL


@dataclass(frozen=True, slots=True)
class Connection:
    """`brokers` are host:port. With `tls` the connection is encrypted; with `mechanism` it authenticates by SASL.

    Without `tls` Faust sends SASL credentials over an unencrypted connection. Whether that is allowed is checked when
    the configuration is read.
    """

    brokers: tuple[str, ...]
    session_timeout: float = 6.0
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    mechanism: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def urls(self) -> list[URL]:
        return [URL(f"kafka://{broker}") for broker in self.brokers]

    @property
    def credentials(self) -> Any:
        """Credentials as Faust takes them; None for an unencrypted connection without a user."""
        if self.mechanism:
            return faust.SASLCredentials(
                mechanism=self.mechanism, username=self.username, password=self.password, ssl_context=self.tls
            )
        # SSLCredentials(cafile=...) raises TypeError in Faust 0.15.3; it takes a context only.
        return faust.SSLCredentials(context=self.tls) if self.tls else None

    @property
    def client(self) -> dict[str, Any]:
        """Keyword arguments of aiokafka's clients."""
        settings: dict[str, Any] = {"bootstrap_servers": list(self.brokers)}
        if self.mechanism:
            settings |= {
                "security_protocol": "SASL_SSL" if self.tls else "SASL_PLAINTEXT",
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        elif self.tls:
            settings["security_protocol"] = "SSL"
        if self.tls:
            settings["ssl_context"] = self.tls
        return settings
