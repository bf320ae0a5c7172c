"""Memory and open files of a process under test, from /proc."""

from __future__ import annotations

import os
import resource
from pathlib import Path

MIB = 2**20


def rss_bytes(pid: int) -> int:
    """Memory that the process has in use now."""
    return _status_bytes(pid, "VmRSS")


def peak_rss_bytes(pid: int) -> int:
    """The most memory that it had in use since `reset_peak`."""
    return _status_bytes(pid, "VmHWM")


def reset_peak(pid: int) -> None:
    """Forget the peak, and measure it from now on (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def open_files(pid: int) -> int:
    """File descriptors that it has open now."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def raise_file_limit() -> int:
    """Let this process, and those that it starts, open as many files as the system allows; give that number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _status_bytes(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise AssertionError(f"process {pid} has no {name}: it has ended")
