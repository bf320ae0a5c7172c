"""The bodies and answers of the routes about imports, and the strict reading of a piece of one. Pure.

    piece = decode_piece(request.body, kind)      `Piece`, or `Refused` that names the field at fault

Rules:
- A body is decoded in one pass, because nearly every body is well formed. Where that fails each row is decoded by
  itself, so that the refusal names the row: `rows[7].score`. One bad row refuses the piece.
- What only the state can tell is left to `engine.import_decisions`: the order of the rows, users who come twice, and
  whether a score or a time can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from engine.commands import ImportReceipt, ImportRow
from engine.imports import Import
from engine.limits import SCORE_MAX, SEQ_MAX
from engine.texts import id_fault, name_fault
from server import bounds
from server.api.answers import AgeMs, Epoch, Seq, SeqOrNone
from server.api.decoding import decode_strictly
from server.api.shape_faults import BODY
from server.http.messages import JSON, MSGPACK, Id, Name, Refused, invalid
from server.settings.board_form import AN_INSTANT, instant_ms

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# As for `Id`, these types only describe: the checks have better messages.
RowCount = Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": SEQ_MAX})]
RowNumber = Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": SEQ_MAX})]
_Instant = Annotated[int | str, Meta(description="ms since 1970, or a time such as 2025-12-15T12:00:00Z")]
_RowScore = Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": SCORE_MAX}, examples=[4711])]


class ImportRowBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", gc=False):
    """A row of an import. `reached_at` is shown as the time of the score. A name registers the user, or renames."""

    user_id: Annotated[Id, Meta(examples=["alice"])]
    score: _RowScore
    reached_at: _Instant | None = None
    display_name: Annotated[Name, Meta(examples=["Alice"])] | None = None


class ImportBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Body of POST /boards/{boardId}/imports: some rows of an import, of which `first_row` is the number of the first.

    `total` counts the rows of the whole import. `digest` names their content: each piece says the same.
    """

    import_id: Annotated[Id, Meta(examples=["season-1"])]
    digest: Annotated[Id, Meta(examples=["sha256:9f86d081"])]
    total: RowCount
    rows: Annotated[
        list[ImportRowBody], Meta(extra_json_schema={"minItems": 1, "maxItems": bounds.IMPORT_PIECE_ROWS_MAX})
    ]
    first_row: RowNumber | None = None
    merge: bool | None = None


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The same with rows that are not read yet."""

    import_id: str
    digest: str
    total: int
    rows: list[msgspec.Raw]
    first_row: int | None = None
    merge: bool | None = None


class Piece(msgspec.Struct, frozen=True):
    """Rows of an import, for `engine.commands.ImportRows`."""

    import_id: str
    digest: str
    total: int
    first_row: int
    merge: bool
    rows: Sequence[ImportRow]


class ImportedAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """POST /boards/{boardId}/imports. `rows` of the import, those that are done, and those that this piece added."""

    import_id: Id
    board_id: Id
    rows: RowCount
    rows_done: RowNumber
    applied: Annotated[int, Meta(ge=0, le=bounds.IMPORT_PIECE_ROWS_MAX)]
    finished: bool
    epoch: Epoch
    seq: Seq


class ImportObject(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """How far an import is. `begun_seq` is the event that began it."""

    import_id: Id
    board_id: Id
    rows: RowCount
    rows_done: RowNumber
    finished: bool
    merge: bool
    digest: Id
    begun_seq: Seq


class ImportsAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """GET /boards/{boardId}/imports: those of the board, in the order in which they began."""

    board_id: Id
    imports: list[ImportObject]
    epoch: Epoch
    seq: SeqOrNone
    stale: Literal[True] | UnsetType = UNSET
    age_ms: AgeMs | UnsetType = UNSET


class ImportAnswer(ImportObject, frozen=True, rename="camel", kw_only=True):
    """GET /boards/{boardId}/imports/{importId}."""

    epoch: Epoch
    seq: SeqOrNone
    stale: Literal[True] | UnsetType = UNSET
    age_ms: AgeMs | UnsetType = UNSET


class _Form(msgspec.Struct, frozen=True):
    """The decoders of one media type: of a whole body, of one whose rows are not read yet, of a row."""

    name: str
    whole: Any
    envelope: Any
    row: Any


_FORMS = {
    JSON: _Form("JSON", *map(msgspec.json.Decoder, (ImportBody, _Envelope, ImportRowBody))),
    MSGPACK: _Form("MessagePack", *map(msgspec.msgpack.Decoder, (ImportBody, _Envelope, ImportRowBody))),
}


def decode_piece(body: bytes, kind: str) -> Piece:
    """Read a body of this media type. Raises `Refused`."""
    form = _FORMS[kind]
    if kind == JSON:
        body = body.removeprefix(_BYTE_ORDER_MARK)
    try:
        sent: ImportBody | _Envelope = form.whole.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        sent = decode_strictly(form.envelope, body, form.name)
    for field, text in (("importId", sent.import_id), ("digest", sent.digest)):
        if fault := id_fault(text):
            raise invalid(field, f"{field} {fault}.")
    if not 1 <= sent.total <= SEQ_MAX:
        raise invalid("total", f"total must be from 1 to {SEQ_MAX}: it counts the rows of the whole import.")
    first_row = sent.first_row or 0
    if not 0 <= first_row < sent.total:
        raise invalid("firstRow", f"firstRow must be from 0 to {sent.total - 1}, the last row of the import.")
    most = bounds.IMPORT_PIECE_ROWS_MAX
    if not 1 <= len(sent.rows) <= most:
        raise invalid("rows", f"rows has 1 to {most} rows, not {len(sent.rows)}.", minimum=1, maximum=most)
    unread: Sequence[ImportRowBody | msgspec.Raw] = sent.rows
    rows = [_row(form, place, row) for place, row in enumerate(unread)]
    return Piece(sent.import_id, sent.digest, sent.total, first_row, bool(sent.merge), rows)


def _row(form: _Form, place: int, sent: ImportRowBody | msgspec.Raw) -> ImportRow:
    try:
        row = decode_strictly(form.row, bytes(sent), form.name) if isinstance(sent, msgspec.Raw) else sent
        if fault := id_fault(row.user_id):
            raise invalid("userId", f"userId {fault}.")
        if row.display_name is not None and (fault := name_fault(row.display_name)):
            raise invalid("displayName", f"displayName {fault}.")
        reached_ms = row.reached_at
        if isinstance(reached_ms, str) and (reached_ms := instant_ms(reached_ms)) is None:
            raise invalid("reachedAt", f"reachedAt {AN_INSTANT}, or ms since 1970.")
    except Refused as refused:
        within = refused.details["field"]
        if within == BODY:
            raise invalid(f"rows[{place}]", f"rows[{place}] {refused.message.removeprefix(f'{BODY} ')}") from None
        raise invalid(f"rows[{place}].{within}", f"rows[{place}]: {refused.message}") from None
    return ImportRow(row.user_id, row.score, reached_ms, row.display_name)


def imported_answer(receipt: ImportReceipt) -> ImportedAnswer:
    """Make the wire's form of a receipt."""
    return ImportedAnswer(
        receipt.import_id, receipt.board_id, receipt.rows, receipt.rows_done, receipt.applied,
        receipt.rows_done == receipt.rows, receipt.epoch, receipt.seq,
    )  # fmt: skip


def import_fields(known: Import) -> dict[str, Any]:
    """Give the fields of `ImportObject`."""
    return {
        "import_id": known.import_id, "board_id": known.board_id, "rows": known.rows, "rows_done": known.rows_done,
        "finished": known.is_finished, "merge": known.merge, "digest": known.digest, "begun_seq": known.begun_seq,
    }  # fmt: skip
