"""A question of a command to a running node, and what becomes of its answer.

    done = post_node(url, PROMOTE_PATH, token, _Done)

Every failure is one sentence that names the node: no answer, a refusal with its reason, an answer of somebody else.
"""

from __future__ import annotations

import ssl
from typing import TypeVar

import httpx
import msgspec

from server.cli.support import BadUsage, CommandRefused
from server.settings.values import check_node_url

ANSWER_SECONDS_MAX = 60.0

Answer = TypeVar("Answer")


def post_node(url: str, path: str, token: str, kind: type[Answer]) -> Answer:
    """Post to a node's path without a body; give its answer as `kind`. Raises `BadUsage` and `CommandRefused`."""
    try:
        check_node_url(url or "-")
    except ValueError as error:
        raise BadUsage(f"--url: {error}") from error
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        trusted = ssl.create_default_context()  # the certificates that this machine trusts, as for a replica's link
        with httpx.Client(timeout=ANSWER_SECONDS_MAX, verify=trusted, trust_env=False) as client:
            answer = client.post(url.rstrip("/") + path, headers=headers)
        body = msgspec.json.decode(answer.content)
    except httpx.HTTPError as error:
        raise CommandRefused(f"{url} does not answer: {error or type(error).__name__}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CommandRefused(f"{url} gave an answer that is not a scoreboard's") from error
    if answer.status_code != httpx.codes.OK:
        message = body.get("error", {}).get("message", "") if isinstance(body, dict) else ""
        raise CommandRefused(f"{url} refused with status {answer.status_code}: {message}")
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise CommandRefused(f"{url} gave an answer that is not a scoreboard's") from error
