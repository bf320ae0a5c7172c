"""One frame to many sockets with one call of the kernel: io_uring (Linux 6.1 or newer).

    ring = Ring.open(256)                    # None: the kernel has none for us
    short = ring.write(files, frame)         # who did not take all of it
    ring.close()

The kernel takes requests from one ring in shared memory and puts results into another:

    write: fill the next n slots ──► io_uring_enter ──► a result for each socket that did not take all

A request of 64 bytes (`struct io_uring_sqe`); what is not drawn stays 0:

    0        1        4            16           24         28               32
    opcode   flags    file (s32)   address of   length     flags of send    number of the slot
    SEND     SKIP                  the frame    (u32)      (u32)            (u64)

A result of 16 bytes: the number of the slot (u64), what send(2) would give (s32, an errno negated), flags (u32).

Rules:
- Each request has MSG_DONTWAIT. So the kernel ends it before io_uring_enter returns, whatever the socket is like, and
  nothing is sent later.
- A request that succeeds gives no result (IOSQE_CQE_SKIP_SUCCESS), so nearly always there is nothing to read. With
  MSG_WAITALL it succeeds only if the socket takes all. A part is a failure, whose result is the length of the part.
- A kernel that is short of memory takes fewer requests. Those that it left are taken back, and their sockets count as
  full, so their viewers are written to later.
- Nothing but the number of the slot ties a result to its request: the kernel promises no order.
- The processor's caches hold nothing of this file when it runs: the kernel's work for the sockets before has filled
  them. So each step costs several times what a loop in a test shows, and there are few.
- One thread uses a ring, the one that opened it. So no other writes to the shared memory meanwhile, and the kernel's
  work for a ring needs no locks.
- A container runtime may forbid io_uring. Then `open` gives None, and `server.live.writing` writes one by one.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

Files = NDArray[np.int32]

Short = list[tuple[int, int]]
"""The sockets that did not take a whole frame: the index of each, and the bytes that it took, or minus an errno."""

_SETUP, _ENTER = 425, 426  # the same on every architecture
_SUBMIT_ALL, _SINGLE_ISSUER, _DEFER_TASKRUN = 1 << 7, 1 << 12, 1 << 13
_GETEVENTS = 1
_OFFSET_RINGS, _OFFSET_REQUESTS = 0, 0x10000000
_SEND, _SKIP = 26, 1 << 6
_MASK = 2**32 - 1

# struct io_uring_params: entries of both rings, flags, 2 unused, features, 4 unused; where the fields of the requests'
# ring lie (head, tail, mask, entries, flags, dropped, array, unused, address); those of the results' ring (head, tail,
# mask, entries, overflow, results, flags, unused, address).
_PARAMETERS = struct.Struct("=10I 8IQ 8IQ")
_REQUEST = np.dtype(
    {
        "names": ["opcode", "flags", "file", "address", "length", "send_flags", "slot"],
        "formats": ["u1", "u1", "<i4", "<u8", "<u4", "<u4", "<u8"],
        "offsets": [0, 1, 4, 16, 24, 28, 32],
        "itemsize": 64,
    }
)
_RESULT = np.dtype([("slot", "<u8"), ("taken", "<i4"), ("flags", "<u4")])

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Ring:
    """See above."""

    def __init__(self, file: int, parameters: tuple[Any, ...]) -> None:
        """`parameters` are those that the kernel gave back for this ring."""
        self._file = file
        self.entries, results = parameters[:2]
        requests_at, results_at = parameters[10:17], parameters[19:25]
        size = max(requests_at[6] + self.entries * 4, results_at[5] + results * _RESULT.itemsize)
        rings, requests = _shared(file, size, _OFFSET_RINGS), _shared(file, self.entries * 64, _OFFSET_REQUESTS)
        self._words = memoryview(rings).cast("I")
        self._tail, self._done, self._given = requests_at[1] // 4, results_at[0] // 4, results_at[1] // 4
        self._results = np.frombuffer(rings, _RESULT, results, results_at[5])
        self._numbers = np.arange(self.entries, dtype=np.uint32)
        np.frombuffer(rings, np.uint32, self.entries, requests_at[6])[:] = self._numbers
        made = np.frombuffer(requests, _REQUEST, self.entries)
        made["opcode"], made["flags"] = _SEND, _SKIP
        made["send_flags"] = socket.MSG_DONTWAIT | socket.MSG_WAITALL | socket.MSG_NOSIGNAL
        made["slot"] = self._numbers
        self._files, self._addresses, self._lengths = made["file"], made["address"], made["length"]
        self._frame = b""

    @classmethod
    def open(cls, entries: int) -> Ring | None:
        """Make a ring for at least `entries` sockets at once."""
        parameters = ctypes.create_string_buffer(_PARAMETERS.size)
        _PARAMETERS.pack_into(parameters, 0, 0, 0, _SUBMIT_ALL | _SINGLE_ISSUER | _DEFER_TASKRUN, *[0] * 25)
        file = _libc.syscall(_SETUP, entries, parameters)
        if file < 0:
            return None
        try:
            if _enter(file, 0) == 0:
                return cls(file, _PARAMETERS.unpack(parameters))
        except OSError:
            pass
        os.close(file)
        return None

    def write(self, files: Files, frame: bytes) -> Short:
        """Write a frame to each of these sockets, at most `entries` of them."""
        count, words, entries = len(files), self._words, self.entries
        assert count <= entries
        if frame is not self._frame:
            self._frame = frame
            self._addresses[:] = ctypes.cast(ctypes.c_char_p(frame), ctypes.c_void_p).value
            self._lengths[:] = len(frame)
        tail = words[self._tail]
        start = tail % entries
        self._files[start : start + count] = files[: entries - start]
        if count > entries - start:
            self._files[: count - (entries - start)] = files[entries - start :]
        words[self._tail] = (tail + count) & _MASK
        queued = max(0, _enter(self._file, count))
        if queued == count and words[self._given] == words[self._done]:
            return []
        words[self._tail] = (tail + queued) & _MASK
        return [*self._take_results(start, queued), *((index, -errno.EAGAIN) for index in range(queued, count))]

    def _take_results(self, start: int, queued: int) -> Short:
        done, given = self._words[self._done], self._words[self._given]
        count = (given - done) & _MASK
        assert count <= queued, f"io_uring took {queued} requests and gave {count} results"
        results = self._results[(self._numbers[:count] + done) % len(self._results)]
        self._words[self._done] = given
        return [*zip(((results["slot"] - start) % self.entries).tolist(), results["taken"].tolist(), strict=True)]

    def close(self) -> None:
        """Give the ring back to the kernel."""
        os.close(self._file)


def _enter(file: int, count: int) -> int:
    """Have the kernel do the next requests; give how many it took, or a negative number."""
    taken: int = _libc.syscall(_ENTER, file, count, 0, _GETEVENTS, None, 0)
    return taken


def _shared(file: int, size: int, offset: int) -> mmap.mmap:
    return mmap.mmap(file, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=offset)
