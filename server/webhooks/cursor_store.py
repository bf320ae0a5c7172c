"""The cursors of a data directory: `webhooks/NAME.json`, one for each hook.

    store = CursorStore(disk, "data"); cursor = await store.load("orders")         None: there is none
    await store.save("orders", cursor)

Rules:
- A file appears whole and durable, or not at all. A later one replaces it.
- A file that can't be read as a cursor is `CursorDamaged`. The next save replaces it.
- A name is checked by the configuration: it leads to no other directory.
"""

from __future__ import annotations

from functools import partial

from engine.disk import Disk, FileMissing
from engine.threads import run
from server.webhooks.cursor import Cursor, CursorDamaged, pack, unpack
from snapshots.restore import HOOK_BYTES_MAX, HOOKS


class CursorStore:
    """See above."""

    def __init__(self, disk: Disk, data_dir: str) -> None:
        self._disk = disk
        self._directory = f"{data_dir}/{HOOKS}"

    def path(self, name: str) -> str:
        """Give the path of a cursor's file."""
        return f"{self._directory}/{name}.json"

    async def load(self, name: str) -> Cursor | None:
        """Read a cursor. Raises `CursorDamaged`, `DiskFault`."""
        try:
            data = await run(partial(self._read, self.path(name)), blocks=self._disk.blocks)
        except FileMissing:
            return None
        return unpack(data)

    async def save(self, name: str, cursor: Cursor) -> None:
        """Write a cursor as it is now. Raises `DiskFault`."""
        await run(partial(self._write, self.path(name), pack(cursor)), blocks=self._disk.blocks)

    def _read(self, path: str) -> bytes:
        if self._disk.size(path) > HOOK_BYTES_MAX:
            raise CursorDamaged("it is too long")
        file = self._disk.open(path)
        try:
            return file.read_at(0, HOOK_BYTES_MAX)
        finally:
            file.close()

    def _write(self, path: str, data: bytes) -> None:
        if not self._disk.exists(self._directory):
            self._disk.make_directory(self._directory)
        self._disk.write_whole(path, [data])
