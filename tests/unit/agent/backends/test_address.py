"""Addresses of flag systems are encrypted or on loopback, and hold no credentials."""

from __future__ import annotations

import pytest

from agent.backends.address import checked_url
from agent.errors import ConfigError


@pytest.mark.parametrize(
    "url",
    [
        "https://flags.example.org",
        "https://flags.example.org:8443/a/{flag}",
        "http://127.0.0.1:4242",
        "http://127.9.9.9",
        "http://[::1]:4242/set",
        "http://localhost:4242",
    ],
)
def test_https_anywhere_and_http_on_loopback_are_allowed(url: str) -> None:
    assert checked_url("unleash", url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://flags.example.org",
        "http://10.0.0.1",
        "http://127.0.0.1.example.org",
        "http://localhost.example.org",
        "http://0.0.0.0",
        "http://[::]",
        "ftp://127.0.0.1",
        "flags.example.org",
        "//127.0.0.1",
        "https://",
        "https://[::1",
        "https://flags.example.org:port",
        "",
    ],
)
def test_everything_else_is_refused_with_what_to_write_instead(url: str) -> None:
    with pytest.raises(ConfigError, match=r"unleash: .*https"):
        checked_url("unleash", url)


@pytest.mark.parametrize("url", ["https://user:hush@flags.example.org", "http://hush@127.0.0.1"])
def test_credentials_in_an_address_are_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigError, match="0600") as refused:
        checked_url("webhook", url)
    assert "hush" not in str(refused.value)
