"""Reading one part of a snapshot, and little else of the file.

    data = read_part(file, path, "actions")               b"": the snapshot has no such part
    manifest = read_manifest(file, path)                  None: it names no files of older actions

What is read is proved by the checksums of its chunks, not by the digest of the whole file.
"""

from __future__ import annotations

import msgspec

from engine.errors import SnapshotDamaged
from engine.image import ACTIONS
from engine.sealed_actions import Manifest, manifest_in
from snapshots.chunks import CHUNK_HEADER_BYTES, Source
from snapshots.format import BYTES, FOOTER, part_lengths


def read_part(source: Source, path: str, name: str) -> bytes:
    """Read a part. Raises `SnapshotDamaged`."""
    file, lengths = part_lengths(source, path)
    chunks = sum(-(-length // BYTES) for _, length in lengths)
    total = sum(length for _, length in lengths) + chunks * CHUNK_HEADER_BYTES
    offset = file.size - CHUNK_HEADER_BYTES - FOOTER.size - total
    for part, length in lengths:
        data = b""
        while len(data) < length:
            chunk = file.at(offset)
            file.check_kind(chunk, b"part", None)
            data += chunk.payload
            offset = chunk.end
        if part == name:
            return data
    return b""


def read_manifest(source: Source, path: str) -> Manifest | None:
    """Read which files of older actions belong to a snapshot; None if none do. Raises `SnapshotDamaged`."""
    data = read_part(source, path, ACTIONS)
    try:
        return manifest_in([(ACTIONS, data)] if data else [])
    except msgspec.MsgspecError as error:
        raise SnapshotDamaged(f"its list of files of actions says nothing: {error}", path=path) from error
