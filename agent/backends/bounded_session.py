"""HTTP requests to a token service with a bound on the size of an answer: a token has a few kilobytes."""

from __future__ import annotations

from typing import Any

from requests import PreparedRequest, RequestException, Response, Session

MOST_BYTES = 2**20


class AnswerTooLarge(RequestException):
    """An answer had more than `MOST_BYTES`."""


class BoundedSession(Session):
    """A session that raises AnswerTooLarge on a large answer, and follows no redirects: token services send none."""

    def send(self, request: PreparedRequest, **kwargs: Any) -> Response:
        response = super().send(request, **{**kwargs, "stream": True, "allow_redirects": False})
        found = bytearray()
        for piece in response.iter_content(64 * 2**10):
            found += piece
            if len(found) > MOST_BYTES:
                response.close()
                raise AnswerTooLarge(f"more than {MOST_BYTES:,} bytes")
        # `Response.content` returns this from now on.
        response._content = bytes(found)
        return response
