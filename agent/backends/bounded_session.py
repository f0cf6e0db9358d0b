"""Requests to a token service, whose answers do not fill the memory: a token has a few kilobytes."""

from __future__ import annotations

from typing import Any

from requests import PreparedRequest, RequestException, Response, Session

MOST_BYTES = 2**20


class AnswerTooLarge(RequestException):
    """An answer had more than `MOST_BYTES`."""


class BoundedSession(Session):
    """A session that follows no redirects, which no token service gives, and gives up on a large answer."""

    def send(self, request: PreparedRequest, **kwargs: Any) -> Response:
        response = super().send(request, **{**kwargs, "stream": True, "allow_redirects": False})
        found = bytearray()
        for piece in response.iter_content(64 * 2**10):
            found += piece
            if len(found) > MOST_BYTES:
                response.close()
                raise AnswerTooLarge(f"more than {MOST_BYTES:,} bytes")
        # What `Response.content` gives from now on.
        response._content = bytes(found)
        return response
