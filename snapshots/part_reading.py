"""Reading one part of a snapshot, and little else of the file.

    data = read_part(file, path, "actions")               b"": the snapshot has no such part

What is read is proved by the checksums of its chunks, not by the digest of the whole file.
"""

from __future__ import annotations

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
