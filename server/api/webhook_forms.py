"""The answers of the routes about webhooks. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from server.api.answers import Epoch, SeqOrNone, Time

WebhookName = Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
WebhookEvent = Literal["top.changed", "user.overtaken", "period.ended", "review.flagged", "user.erased"]


class WebhookCursor(msgspec.Struct, frozen=True):
    """A position: everything up to it is delivered."""

    epoch: Epoch
    seq: SeqOrNone


class WebhookObject(msgspec.Struct, frozen=True, rename="camel"):
    """A webhook. No `boards`: all of them. `cursor` is null until the hook begins.

    `lag` are the events after the cursor, most of which call for no delivery. `failures` counts the attempts since the
    last one that was acknowledged. A hook that is `disabled` delivers nothing until it is enabled, and goes on then
    where it stopped: `lastError` says why.
    """

    name: WebhookName
    url: str
    events: tuple[WebhookEvent, ...]
    boards: tuple[str, ...]
    cursor: WebhookCursor | None
    lag: Annotated[int, Meta(ge=0)]
    failures: Annotated[int, Meta(ge=0)]
    last_error: str | None
    last_error_at: Time | None
    disabled: bool


class WebhooksAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """GET /webhooks, in the order of the configuration."""

    webhooks: list[WebhookObject]
    epoch: Epoch
    seq: SeqOrNone


class WebhookAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """POST /webhooks/{name}/enable: the hook as it is now."""

    webhook: WebhookObject
    epoch: Epoch
    seq: SeqOrNone
