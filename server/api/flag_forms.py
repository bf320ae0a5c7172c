"""The bodies of PUT /flags/live and of its answers. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from engine.commands import FlagReceipt
from engine.events import FlagName
from engine.flags import Flags
from server.api.answers import AgeMs, Epoch, SeqOrNone, Time
from server.api.decoding import decode_strictly
from server.live.encoding import iso_or_none

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class FlagBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of PUT /flags/live."""

    enabled: bool


class FlagAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """GET /flags/live. `since` is when it was switched off; null: it is on."""

    flag: FlagName
    enabled: bool
    since: Time | None
    epoch: Epoch
    seq: SeqOrNone
    stale: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    age_ms: AgeMs | msgspec.UnsetType = msgspec.UNSET


class FlagPutAnswer(FlagAnswer, frozen=True, kw_only=True, rename="camel"):
    """PUT /flags/live. `applied` is false if it was so already. The position is that of the change."""

    applied: bool


_decoder = msgspec.json.Decoder(FlagBody)


def decode_flag(body: bytes) -> bool:
    """Decode the body of PUT /flags/live: whether it shall be on. Raises `Refused`."""
    return decode_strictly(_decoder, body.removeprefix(_BYTE_ORDER_MARK)).enabled


def put_answer(flags: Flags, receipt: FlagReceipt) -> FlagPutAnswer:
    """Make the answer to a command that was done."""
    return FlagPutAnswer(
        flag=receipt.flag,
        enabled=receipt.enabled,
        since=None if receipt.enabled else iso_or_none(flags.since_ms(receipt.flag)),
        epoch=receipt.epoch,
        seq=receipt.seq,
        applied=receipt.applied,
    )
