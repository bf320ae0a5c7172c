"""`[http]`: the deadlines of a connection. Pure.

    HttpBounds.of(config.http)      # what the listener's connections get

A proxy in front keeps connections, and must be the one that closes an idle one. If we close first, the request that it
sends meanwhile is lost, and its client gets 502. So `idle_seconds` is to exceed the proxy's idle time (60 s in AWS and
nginx, 600 s in Google's load balancer), and the others the times that the proxy gives its own clients and us.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from server import bounds

DeadlineSeconds = Annotated[int, Meta(ge=1, le=3_600, description="an integer from 1 to 3600")]


class HttpConfig(msgspec.Struct, frozen=True):
    """`idle_seconds`: from connecting, or from an answer, to the next request.

    `head_seconds`: from a request's first byte to the end of its head; `body_seconds`: from there to the end of its
    body. `send_seconds`: for each 64 KiB that are written.
    """

    idle_seconds: DeadlineSeconds = int(bounds.IDLE_SECONDS_MAX)
    head_seconds: DeadlineSeconds = int(bounds.HEAD_SECONDS_MAX)
    body_seconds: DeadlineSeconds = int(bounds.BODY_SECONDS_MAX)
    send_seconds: DeadlineSeconds = int(bounds.SEND_SECONDS_MAX)
