"""The strict reading of request bodies. Pure: bytes in, values out, or `Refused` that names the field at fault.

    check_content(request)                      before the body is read
    body = decode_increment(request.body)       or decode_batch, decode_user, decode_query, decode_board, decode_reset

Rules:
- A body is JSON with only the named fields. An unknown field is refused by name: a caller that sends `delta` believes
  that it counts. Where an object has a field twice, the last one counts, as RFC 8259 allows.
- `Content-Type` may be missing, or is `application/json`. Its parameters are ignored, but for a charset that is not
  UTF-8. curl labels bodies `application/x-www-form-urlencoded` by default, so that counts as missing. Compressed bodies
  are refused.
- A batch is decoded in one pass, because nearly every batch is well formed. Where that fails each item is decoded by
  itself, so that a bad item is refused alone.
- A batch may also be MessagePack (`application/msgpack`): an array of maps with the same fields, under the same rules.
- `null` for an optional field is as if the field was left out, because many serializers write it. The exception is
  `displayName`: null takes the name away. A byte order mark before JSON is skipped.
- JSON in plain ASCII, without escapes and DEL, has no control characters in its strings (JSON forbids them) and no
  broken Unicode. There only lengths can be wrong, and the decoder checks them. Other ids are checked one by one.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Annotated, Any, TypeVar

import msgspec

from engine import limits
from engine.board_rules import BoardRules
from engine.texts import id_fault, name_fault
from server import bounds
from server.api.shape_faults import shape_fault
from server.http.messages import JSON, MSGPACK, Id, Name, Refused, Request, invalid, quoted
from server.http.target import DEFAULT_BOARD
from server.settings.board_form import AN_INSTANT, FormFault, instant_ms, rules_of

DEFAULT_REASON = "ACTION_COMPLETED"

_Bounded = msgspec.Meta(min_length=1, max_length=limits.ID_CHARACTERS_MAX)


class IncrementBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", gc=False):
    """Body of POST /scores/increment, and an item of a batch."""

    user_id: Annotated[Id, _Bounded, msgspec.Meta(examples=["alice"])]
    action_id: Annotated[Id, _Bounded, msgspec.Meta(examples=["order-4711"])]
    reason: Annotated[Id, _Bounded, msgspec.Meta(examples=[DEFAULT_REASON])] = DEFAULT_REASON
    board_id: Annotated[Id, _Bounded, msgspec.Meta(examples=[DEFAULT_BOARD])] = DEFAULT_BOARD
    value: Annotated[int, msgspec.Meta(ge=0, le=limits.SCORE_MAX)] | None = None


class _Loose(IncrementBody, frozen=True, forbid_unknown_fields=True, rename="camel", gc=False):
    """The same with nulls, and with strings of any length: read after the strict form failed, which most bodies fit.

    It takes nulls, and lets us say better what is wrong.
    """

    user_id: str
    action_id: str
    reason: str | None = None  # type: ignore[assignment]  # `_filled` makes the strict form of it
    board_id: str | None = None  # type: ignore[assignment]
    value: int | None = None


_UserName = Annotated[Name, msgspec.Meta(examples=["Alice"])]


class UserBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", gc=False):
    """Body of PUT /users/{userId}. A field that is missing stays as it is."""

    display_name: _UserName | msgspec.UnsetType | None = msgspec.UNSET
    active: bool | msgspec.UnsetType | None = msgspec.UNSET


# As for `Id`, the type only describes: the check has a better message.
_Listed = msgspec.Meta(extra_json_schema={"minItems": 1, "maxItems": bounds.QUERY_USERS_MAX})


class QueryBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Body of POST /scores/query. A user who is named twice counts once."""

    user_ids: Annotated[list[Id], msgspec.Meta(examples=[["alice", "bob"]]), _Listed]
    board_id: Annotated[Id, msgspec.Meta(examples=[DEFAULT_BOARD])] | None = DEFAULT_BOARD


class ResetBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /boards/{boardId}/reset; it may be empty. A reset that names a period ends no other."""

    # As for `Id`, the type only describes the length.
    period: (
        Annotated[str, msgspec.Meta(examples=["2026-W48"], extra_json_schema={"maxLength": limits.ID_CHARACTERS_MAX})]
        | None
    ) = None


class FreezeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /boards/{boardId}/freeze; it may be empty. Without a time the board is frozen now."""

    at: Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})] | None = None


class NoBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a request that says nothing; it may be empty."""


Step = Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 1, "maximum": bounds.REVEAL_STEP_MAX})]


class RevealBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /boards/{boardId}/reveal; it may be empty. `step` is the number of rows, 1 if it is left out."""

    step: Step | None = None


Body = TypeVar("Body")


class _Form(msgspec.Struct, frozen=True):
    """The decoders of one media type: of a whole batch, of one with nulls, of its raw items, of one increment, of a
    `_Loose` one. A body without `null` in its bytes has no nulls.
    """

    name: str
    null: bytes
    batch: Any
    loose_batch: Any
    apart: Any
    one: Any
    loose: Any

    @classmethod
    def of(cls, name: str, null: bytes, decoder: Any) -> _Form:
        kinds = (list[IncrementBody], list[_Loose], list[msgspec.Raw], IncrementBody, _Loose)
        return cls(name, null, *map(decoder, kinds))


_JSON_FORM = _Form.of("JSON", b"null", msgspec.json.Decoder)
_MSGPACK_FORM = _Form.of("MessagePack", b"\xc0", msgspec.msgpack.Decoder)
_user_decoder = msgspec.json.Decoder(UserBody)
_query_decoder = msgspec.json.Decoder(QueryBody)
_reset_decoder = msgspec.json.Decoder(ResetBody)
_nothing_decoder = msgspec.json.Decoder(NoBody)
_freeze_decoder = msgspec.json.Decoder(FreezeBody)
_reveal_decoder = msgspec.json.Decoder(RevealBody)
_any_decoder = msgspec.json.Decoder()

_ITEM_COMMAS_MAX = 4 * limits.ID_CHARACTERS_MAX + 5
_UNSAID = "application/x-www-form-urlencoded"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)')
_UTF_8 = ("utf-8", "utf8")


def check_content(request: Request, *, may_be_packed: bool = False) -> str:
    """Give the media type of a body, `JSON` or, where that is allowed, `MSGPACK`. Raises `Refused`."""
    kind = JSON
    content_type = request.headers.get("content-type")
    if content_type is not None and content_type != JSON:
        kind, _, parameters = content_type.partition(";")
        kind = kind.strip().lower()
        if kind == _UNSAID:
            kind = JSON
        packed = may_be_packed and kind == MSGPACK
        if not packed and (kind != JSON or not _is_utf_8(parameters)):
            allowed = f"{JSON}, in UTF-8" + (f", or {MSGPACK}" if may_be_packed else "")
            raise invalid("Content-Type", f"Content-Type must be {allowed}.")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise invalid("Content-Encoding", "Compressed bodies are not accepted.")
    return kind


def _is_utf_8(parameters: str) -> bool:
    """Whether no parameter of a Content-Type names another charset."""
    named = (value for name, value in _PARAMETER.findall(f";{parameters}") if name.lower() == "charset")
    return all(value.strip().strip('"').lower() in _UTF_8 for value in named)


def decode_increment(body: bytes) -> IncrementBody:
    """Decode the body of an increment. Raises `Refused`."""
    plain = _is_plain(body)
    return _one(_JSON_FORM, body if plain else body.removeprefix(_BYTE_ORDER_MARK), plain=plain)


def decode_batch(body: bytes, items_max: int, kind: str = JSON) -> list[IncrementBody | Refused]:
    """Decode a batch. A wrong item is returned as its own refusal. Raises `Refused` for the batch as a whole."""
    form = _MSGPACK_FORM if kind == MSGPACK else _JSON_FORM
    if kind == JSON:
        body = body.removeprefix(_BYTE_ORDER_MARK)
    plain = kind == JSON and _is_plain(body)
    try:
        shaped: list[Any] | None = form.batch.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        shaped = None
    if shaped is not None:
        _check_batch_length(len(shaped), items_max)
        return shaped if plain else [_checked_or_refused(item) for item in shaped]
    if _may_have_more(body, items_max, kind):  # counting millions of tiny items would cost too much
        raise invalid("body", f"A batch has 1 to {items_max} items.", minimum=1, maximum=items_max)
    if form.null in body:
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            loose: list[_Loose] = form.loose_batch.decode(body)
            _check_batch_length(len(loose), items_max)
            return [_checked_or_refused(_filled(item)) for item in loose]
    raw: list[msgspec.Raw] = decode_strictly(form.apart, body, form.name)
    _check_batch_length(len(raw), items_max)
    items: list[IncrementBody | Refused] = []
    for one in raw:
        try:
            items.append(_one(form, bytes(one), plain=plain))
        except Refused as refused:
            items.append(refused)
    return items


def _one(form: _Form, body: bytes, *, plain: bool) -> IncrementBody:
    try:
        increment: IncrementBody = form.one.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        increment = _filled(decode_strictly(form.loose, body, form.name))
        plain = False
    if not plain:
        _check(increment)
    return increment


def _filled(loose: _Loose) -> IncrementBody:
    """Put the defaults where nothing or null was given."""
    reason = DEFAULT_REASON if loose.reason is None else loose.reason
    board_id = DEFAULT_BOARD if loose.board_id is None else loose.board_id
    return IncrementBody(loose.user_id, loose.action_id, reason, board_id, loose.value)


def _is_plain(body: bytes) -> bool:
    """Whether the strings of a JSON body can only hold printable ASCII."""
    return body.isascii() and b"\\" not in body and b"\x7f" not in body


def _may_have_more(body: bytes, items_max: int, kind: str) -> bool:
    """Whether a malformed batch seems to have more than `items_max` items."""
    if kind == MSGPACK:
        # A msgpack array begins with its length: 16 bits after 0xdc, 32 after 0xdd. Any other has at most 15 items.
        length = {0xDC: 2, 0xDD: 4}.get(body[0], 0) if body else 0
        return int.from_bytes(body[1 : 1 + length], "big") > items_max
    return body.count(b",") > items_max * _ITEM_COMMAS_MAX


def decode_user(body: bytes) -> UserBody:
    """Decode the body of PUT /users/{userId}. Raises `Refused`."""
    user = decode_strictly(_user_decoder, body.removeprefix(_BYTE_ORDER_MARK))
    if user.active is None:
        user = UserBody(user.display_name)
    if user.display_name is msgspec.UNSET and user.active is msgspec.UNSET:
        raise invalid("body", "Name at least one of displayName and active.")
    if isinstance(user.display_name, str) and (fault := name_fault(user.display_name)):
        raise invalid("displayName", f"displayName {fault}.")
    return user


def decode_query(body: bytes, users_max: int) -> tuple[list[str], str]:
    """Decode the body of POST /scores/query: the users, each once, and the board. Raises `Refused`."""
    query = decode_strictly(_query_decoder, body.removeprefix(_BYTE_ORDER_MARK))
    if not 1 <= len(query.user_ids) <= users_max:
        message = f"userIds has 1 to {users_max} ids, not {len(query.user_ids)}."
        raise invalid("userIds", message, minimum=1, maximum=users_max)
    for index, user_id in enumerate(query.user_ids):
        if fault := id_fault(user_id):
            raise invalid("userIds", f"userIds[{index}] {fault}.")
    board_id = DEFAULT_BOARD if query.board_id is None else query.board_id
    if fault := id_fault(board_id):
        raise invalid("boardId", f"boardId {fault}.")
    return list(dict.fromkeys(query.user_ids)), board_id


def decode_board(board_id: str, body: bytes) -> BoardRules:
    """Decode the body of PUT /boards/{boardId}. Raises `Refused`."""
    form = decode_strictly(_any_decoder, body.removeprefix(_BYTE_ORDER_MARK))
    try:
        return rules_of(board_id, form)
    except FormFault as fault:
        raise invalid(quoted(fault.field), fault.message) from None


def decode_reset(body: bytes) -> str | None:
    """Decode the body of a reset: the period that must run now, None for any. Raises `Refused`."""
    body = body.removeprefix(_BYTE_ORDER_MARK)
    period = decode_strictly(_reset_decoder, body).period if body.strip() else None
    if period is not None and len(period) > limits.ID_CHARACTERS_MAX:
        message = f"period must be at most {limits.ID_CHARACTERS_MAX} characters, not {len(period)}."
        raise invalid("period", message)
    return period


def decode_freeze(body: bytes) -> int | None:
    """Decode the body of a freeze: when it begins, in ms since 1970, None for now. Raises `Refused`."""
    body = body.removeprefix(_BYTE_ORDER_MARK)
    at = decode_strictly(_freeze_decoder, body).at if body.strip() else None
    if at is None:
        return None
    at_ms = instant_ms(at)
    if at_ms is None:
        raise invalid("at", f"at {AN_INSTANT}.")
    return at_ms


def decode_nothing(body: bytes) -> None:
    """Check that a body says nothing: it is empty, or an object without fields. Raises `Refused`."""
    body = body.removeprefix(_BYTE_ORDER_MARK)
    if body.strip():
        decode_strictly(_nothing_decoder, body)


def decode_reveal(body: bytes) -> int:
    """Decode the body of a reveal: how many rows are shown, 1 without a body. Raises `Refused`."""
    step_max = bounds.REVEAL_STEP_MAX
    body = body.removeprefix(_BYTE_ORDER_MARK)
    step = decode_strictly(_reveal_decoder, body).step if body.strip() else 1
    if step is None:
        return 1
    if not 1 <= step <= step_max:
        raise invalid("step", f"step must be a whole number from 1 to {step_max}.", minimum=1, maximum=step_max)
    return step


def _check(increment: IncrementBody) -> None:
    """Refuse ids that are empty, too long or have control characters, and a value that no score can have."""
    if fault := id_fault(increment.user_id):
        raise invalid("userId", f"userId {fault}.")
    if fault := id_fault(increment.action_id):
        raise invalid("actionId", f"actionId {fault}.")
    if fault := id_fault(increment.reason):
        raise invalid("reason", f"reason {fault}.")
    if fault := id_fault(increment.board_id):
        raise invalid("boardId", f"boardId {fault}.")
    if increment.value is not None and not 0 <= increment.value <= limits.SCORE_MAX:
        raise invalid("value", f"value must be a whole number from 0 to {limits.SCORE_MAX}.")


def _checked_or_refused(increment: IncrementBody) -> IncrementBody | Refused:
    try:
        _check(increment)
    except Refused as refused:
        return refused
    return increment


def _check_batch_length(count: int, items_max: int) -> None:
    if not 1 <= count <= items_max:
        raise invalid("body", f"A batch has 1 to {items_max} items, not {count}.", minimum=1, maximum=items_max)


def decode_strictly(decoder: msgspec.json.Decoder[Body], body: bytes, form: str = "JSON") -> Body:
    """Decode a body. Raises `Refused`, which names the field at fault."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as fault:
        raise invalid(*shape_fault(str(fault))) from None
    except msgspec.DecodeError as fault:
        raise invalid("body", f"The body is not valid {form}: {fault}.") from None
    except UnicodeDecodeError:
        raise invalid("body", "The body is not valid UTF-8.") from None
    except RecursionError:
        raise invalid("body", "The body is nested too deeply.") from None
