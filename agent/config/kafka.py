"""The brokers as the configuration names them."""

from __future__ import annotations

import ssl

from agent.backends.secret_file import check_secret_file
from agent.config.model import Config
from agent.errors import ConfigError
from streams.kafka.connection import Connection


def connection(config: Config) -> Connection:
    """Make the connection settings, with the files that `security` names. Raises ConfigError if one cannot be used."""
    kafka = config.kafka
    security = kafka.security
    brokers = tuple(kafka.brokers)
    if security is None:
        return Connection(brokers, session_timeout=kafka.session_timeout)
    tls = None
    if not security.allow_plaintext:
        try:
            tls = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=security.cafile)
            if security.certfile is not None:
                tls.load_cert_chain(security.certfile, security.keyfile)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"kafka.security: {error}; cafile, certfile and keyfile must be PEM files that can be read"
            ) from error
    password = None
    if security.password_file is not None:
        try:
            check_secret_file(security.password_file)
            password = security.password_file.read_text().rstrip("\r\n")
        except (ConfigError, OSError, UnicodeDecodeError) as error:
            # The text of a UnicodeDecodeError contains the password.
            what = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
            raise ConfigError(f"kafka.security.password_file: {what}") from None
    return Connection(
        brokers,
        session_timeout=kafka.session_timeout,
        tls=tls,
        mechanism=security.mechanism,
        username=security.username,
        password=password,
    )
