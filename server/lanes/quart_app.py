"""The Quart-Trio app: every route, for the requests that the express lane does not take.

    app = create_app(pipeline, proxies)     # an ASGI application

It only translates: Quart reads the request and sends the answer, the pipeline does the rest. The routes are not
registered with Quart. Its router works on decoded paths, in which a slash in an id looks like the end of a segment, and
it answers 404 and 405 in its own words.

Rules:
- The body is read whole, up to BODY_BYTES_MAX and within BODY_SECONDS_MAX, before the pipeline gets the request.
- A fault outside the pipeline (a body too long or too slow, an unexpected WebSocket, a bug of Quart's) is answered in
  the same shape as every other error.
"""

from __future__ import annotations

import re
from typing import cast

from hypercorn.typing import HTTPScope
from quart import Request as QuartRequest
from quart import Response as QuartResponse
from quart import request as quart_request
from quart.wrappers.base import BaseRequestWebsocket
from quart_trio import QuartTrio
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge, RequestTimeout
from werkzeug.routing import MapAdapter

from server import bounds
from server.api.pipeline import Pipeline
from server.http.client_address import TrustedProxies, client_of
from server.http.messages import Refused, Request, Response, Stream, joined_headers, path_of, wire_headers

LANE = "http"

_ABSOLUTE_FORM = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")  # RFC 9112, 3.2.2: must be accepted


class _App(QuartTrio):
    """Quart without its router, which costs a request more than the pipeline does, and finds nothing."""

    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        """Give no router for a request. The one for a WebSocket refuses it."""
        return None if isinstance(request, QuartRequest) else super().create_url_adapter(request)


def create_app(pipeline: Pipeline, proxies: TrustedProxies) -> QuartTrio:
    """Make the app that answers every request by the pipeline."""
    app = _App("scoreboard", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = bounds.BODY_BYTES_MAX
    app.config["BODY_TIMEOUT"] = bounds.BODY_SECONDS_MAX
    app.config["RESPONSE_TIMEOUT"] = None  # the connection has a deadline for each write

    async def answer() -> QuartResponse:
        scope = cast(HTTPScope, quart_request.scope)
        try:
            body = await quart_request.get_data(cache=False, as_text=False, parse_form_data=False)
        except (RequestEntityTooLarge, RequestTimeout) as fault:
            return _to_quart(pipeline.refuse(_to_request(scope, b"", proxies), _refused(fault)))
        return _to_quart(await pipeline.answer(_to_request(scope, body, proxies), LANE))

    async def refuse(fault: HTTPException) -> QuartResponse:
        return _to_quart(_refused(fault).response())

    app.before_request(answer)  # it gives an answer, so Quart never looks for a route
    app.register_error_handler(HTTPException, refuse)
    return app


def _to_request(scope: HTTPScope, body: bytes, proxies: TrustedProxies) -> Request:
    headers = joined_headers(
        (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]
    )
    client = scope["client"]
    return Request(
        method=scope["method"],
        path=path_of(_ABSOLUTE_FORM.sub("", scope["raw_path"].decode("latin-1")) or "/"),
        query=scope["query_string"].decode("latin-1"),
        headers=headers,
        body=body,
        address=client_of(proxies, client[0] if client else "", headers),
    )


class _Parts:
    """The parts of a stream, as Quart sends them. Quart closes it in any case."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __aiter__(self) -> _Parts:
        return self

    async def __anext__(self) -> bytes:
        part = await self._stream.part()
        if not part:
            raise StopAsyncIteration
        return part

    async def aclose(self) -> None:
        """Free what the stream holds, without a checkpoint: the request may be cancelled."""
        self._stream.close()


def _to_quart(response: Response) -> QuartResponse:
    if response.stream is None:
        made = QuartResponse(b"" if response.omit_body else response.body, status=response.status)
    else:
        made = QuartResponse(_Parts(response.stream), status=response.status)
    made.headers = Headers(wire_headers(response))
    return made


def _refused(fault: HTTPException) -> Refused:
    """Put what Quart or Werkzeug refuses in our own words."""
    status = fault.code or 500
    if status >= 500:
        return Refused(500, "INTERNAL_ERROR", "Something went wrong on our side.")
    if status == 413:
        message = f"A body is at most {bounds.BODY_BYTES_MAX} bytes."
        return Refused(413, "PAYLOAD_TOO_LARGE", message, {"maximum": bounds.BODY_BYTES_MAX})
    if status == 408:
        return Refused(408, "INVALID_REQUEST", f"The body did not arrive within {bounds.BODY_SECONDS_MAX:g} seconds.")
    if status == 404:
        return Refused(404, "NOT_FOUND", "There is nothing at this address.")
    return Refused(status, "INVALID_REQUEST", "The request can't be served.")
