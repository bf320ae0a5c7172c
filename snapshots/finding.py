"""Finds where the files of a directory name a user: `scoreboard erase verify`.

    for found in find_in_directory(Path("data"), [Wanted("ann", "Ann Kathrin")]): …

Rules:
- Every file of the directory and of those below it is read, whatever its name: log, snapshots, periods, side files,
  unfinished files, what was set aside. Compressed segments are unpacked. A link that leads elsewhere is not followed.
- In the files of our formats a text is a msgpack string, so an id is found as such, with its length: `ann` is not found
  in `anna`. In any other file it is found wherever its bytes are, plain or escaped as in JSON.
- A segment also says which event it is.
- Files of older actions have digests only. They are passed over: a short id may stand in one by chance.
- A file that can't be read or unpacked is told (`Unread`): what was not looked at is not free of the user.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from engine.record import HEADER_BYTES, SEGMENT_HEADER_BYTES, FrameFault, unpack_frame

_OURS = re.compile(r"\d{20}\.(log(\.gz)?|log(\.gz)?\.torn-.*|snapshot|period)(\.tmp)?")
_DIGESTS = re.compile(r"\d{10,}-\d{10,}-[0-9a-f]{16}\.run(\.tmp)?")
_GZIP_WINDOW = 31
_raws = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


class Wanted(msgspec.Struct, frozen=True):
    """Whom to look for. Without a name only the id is."""

    user_id: str
    name: str | None = None

    def texts(self) -> list[tuple[str, str]]:
        return [("userId", self.user_id), *([("displayName", self.name)] if self.name else [])]


class Found(msgspec.Struct, frozen=True):
    """A place that names the user. `offset` is in the unpacked file. `seq` is that of an event in a segment."""

    path: str
    what: str
    offset: int
    seq: int | None = None


class Unread(msgspec.Struct, frozen=True):
    """A file that could not be searched."""

    path: str
    reason: str


def find_in_directory(directory: Path, wanted: Sequence[Wanted]) -> Iterator[Found | Unread]:
    """Search all files; give the places. Memory holds one file at a time."""
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not path.is_file() or _DIGESTS.fullmatch(path.name):
            continue
        try:
            data = path.read_bytes()
            if path.name.endswith((".gz", ".gz.tmp")):
                data = zlib.decompressobj(_GZIP_WINDOW).decompress(data)
        except (OSError, zlib.error) as error:
            yield Unread(str(path), str(error))
            continue
        is_ours = _OURS.fullmatch(path.name) is not None
        for what, text in (text for each in wanted for text in each.texts()):
            for offset in _places(data, text, is_ours=is_ours):
                yield Found(str(path), what, offset, _seq_at(data, offset) if ".log" in path.name else None)


def _places(data: bytes, text: str, *, is_ours: bool) -> Iterator[int]:
    forms = [msgspec.msgpack.encode(text)] if is_ours else [text.encode(), json.dumps(text)[1:-1].encode()]
    for form in dict.fromkeys(forms):
        place = data.find(form)
        while place >= 0:
            yield place
            place = data.find(form, place + 1)


def _seq_at(data: bytes, place: int) -> int | None:
    """Give the seq of the event at an offset of a segment; None if no whole frame is there."""
    offset = SEGMENT_HEADER_BYTES
    try:
        while offset < place:
            frame = unpack_frame(data, offset)
            start = offset + HEADER_BYTES
            offset = start + len(frame.body)
            if place < offset:
                raws = _raws(b"\xdd" + frame.count.to_bytes(4, "big") + frame.body)
                for seq, raw in enumerate(raws, frame.first_seq):
                    start += len(bytes(raw))
                    if place < start:
                        return seq
    except FrameFault:
        return None
    return None
