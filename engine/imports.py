"""The imports that a log knows: which rows of which source are on which board. Pure.

    imports.apply(event, board, users)         `ImportBegun`, then one `ScoreImported` for each row
    known = imports.get("season-1")            known.rows_done of known.rows

    log    … │ ImportBegun "season-1", 3 rows │ row 0 │ row 1 │ … other events … │ row 2 │      finished

Invariants:
- An import has one board, one source and one number of rows, for ever. Its id is never used for another one.
- Rows come in their order, without a gap, each once. So `rows_done` says all of what is done, and a sender that was
  killed goes on there. An import is finished when `rows_done` is `rows`.
- An import is remembered for good: a sender that asks again is told that its rows are there.

The part `imports` of an image is a msgpack list, sorted by import id. Each element is an array:
[import id, board id, rows, rows done, digest, merge, seq of `ImportBegun`].
"""

from __future__ import annotations

import msgspec

from engine.board import Board
from engine.events import ImportEvent, ScoreImported
from engine.users import Users


class Import(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """One import. `digest` is what its sender says of the source. `begun_seq` is the seq of its `ImportBegun`."""

    import_id: str
    board_id: str
    rows: int
    rows_done: int
    digest: str
    merge: bool
    begun_seq: int

    @property
    def is_finished(self) -> bool:
        return self.rows_done == self.rows


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Import]).decode


class Imports:
    """Import id → `Import`. Every operation is O(1), but for lists and images."""

    def __init__(self) -> None:
        self._known: dict[str, Import] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, import_id: str) -> Import | None:
        """Give an import, None if no event began it."""
        return self._known.get(import_id)

    def of_board(self, board_id: str) -> list[Import]:
        """List the imports of a board, the first one first."""
        return [each for each in self._known.values() if each.board_id == board_id]

    def apply(self, event: ImportEvent, board: Board, users: Users) -> None:
        """Note that an import began, or do its next row on its board. Only a row can bring an inactive user there."""
        if isinstance(event, ScoreImported):
            known = self._known[event.import_id]
            assert known.board_id == event.board_id
            assert known.rows_done == event.row < known.rows, f"row {event.row} follows {known.rows_done} rows"
            known.rows_done += 1
            time_ms = event.time_ms if event.reached_ms is None else event.reached_ms
            board.record(event.user_id, event.new_score, event.seq, time_ms)
            user = users.get(event.user_id) if len(users) else None
            if user is not None and not user.active:
                board.hide(event.user_id, event.seq)
            return
        assert event.import_id not in self._known
        self._known[event.import_id] = Import(
            event.import_id, event.board_id, event.rows, 0, event.digest, event.merge, event.seq
        )

    def parts(self) -> tuple[tuple[str, bytes], ...]:
        """Give the part of an image that this is; none without an import."""
        listed = sorted(self._known.values(), key=lambda each: each.import_id)
        return (("imports", _encode(listed)),) if listed else ()

    @classmethod
    def from_image(cls, parts: tuple[tuple[str, bytes], ...]) -> Imports:
        """Make the imports of an image. Raises `msgspec.DecodeError`."""
        imports = cls()
        data = dict(parts).get("imports")
        found = [] if data is None else _decode(data)
        imports._known = {each.import_id: each for each in sorted(found, key=lambda each: each.begun_seq)}
        return imports

    def _check(self) -> None:
        begun = [each.begun_seq for each in self._known.values()]
        assert begun == sorted(set(begun))
        for import_id, each in self._known.items():
            assert import_id == each.import_id
            assert 0 <= each.rows_done <= each.rows
