"""A small file system of its own for a test, which can be filled to the last byte and freed again. It takes root.

    with small_disk("tmpfs", tmp_path / "small") as mount:
        fill(mount); free(mount)

A test is skipped, with the reason, where file systems can't be mounted.
"""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

DISK_BYTES = 24 * 2**20
FILLER = "filler"


@contextmanager
def small_disk(kind: str, mount: Path) -> Iterator[Path]:
    """Mount a file system of DISK_BYTES at `mount`, which is made: `tmpfs`, or `ext4` in a file beside it."""
    mount.mkdir()
    if kind == "tmpfs":
        _run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(mount)])
    else:
        image = mount.with_suffix(".image")
        with image.open("wb") as file:
            file.truncate(DISK_BYTES)
        _run(["mkfs.ext4", "-q", "-m", "0", str(image)])
        _run(["mount", "-o", "loop", str(image), str(mount)])
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)


def fill(mount: Path) -> None:
    """Take all the room that is left."""
    with (mount / FILLER).open("ab", buffering=0) as file:
        for size in (2**20, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def free(mount: Path) -> None:
    """Give it back."""
    (mount / FILLER).unlink()


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip(f"there is no {command[0]} here")
    if done.returncode != 0:
        pytest.skip(f"{command[0]} does not work here: {done.stderr.decode().strip()}")
