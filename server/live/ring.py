"""One frame to many sockets with one call of the kernel: io_uring (Linux 6.1 or newer).

    ring = Ring.open(256)                    # None: the kernel has none for us
    taken = ring.write(files, frame)         # of each socket: the bytes that it took, or minus an errno
    ring.close()

The kernel takes requests from one ring in shared memory and puts results into another:

    write: fill slots 0..n-1 ──► queue them ──► io_uring_enter ──► n results, each with the number of its slot

A request of 64 bytes (`struct io_uring_sqe`); what is not drawn stays 0:

    0        1        4            16           24         28               32
    opcode   flags    file (s32)   address of   length     flags of send    number of the slot
    SEND                           the frame    (u32)      (u32)            (u64)

A result of 16 bytes: the number of the slot (u64), what send(2) would give (s32, an errno negated), flags (u32).

Rules:
- Each request has MSG_DONTWAIT. So the kernel ends it before io_uring_enter returns, whatever the socket is like, and
  the frame need not be kept. `write` asserts that as many results came as were asked for.
- Nothing but the number of the slot ties a result to its request: the kernel promises no order.
- One thread uses a ring, the one that opened it. So no other writes to the shared memory meanwhile, and the kernel's
  work for a ring needs no locks.
- A container runtime may forbid io_uring. Then `open` gives None, and `server.live.writing` writes one by one.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

Files = NDArray[np.int32]
Taken = NDArray[np.int32]

_SETUP, _ENTER = 425, 426  # the same on every architecture
_SUBMIT_ALL, _SINGLE_ISSUER, _DEFER_TASKRUN = 1 << 7, 1 << 12, 1 << 13
_GETEVENTS = 1
_OFFSET_RINGS, _OFFSET_REQUESTS = 0, 0x10000000
_SEND = 26

# struct io_uring_params: entries of both rings, flags, 2 unused, features, 4 unused; where the fields of the requests'
# ring lie (head, tail, mask, entries, flags, dropped, array, unused, address); those of the results' ring (head, tail,
# mask, entries, overflow, results, flags, unused, address).
_PARAMETERS = struct.Struct("=10I 8IQ 8IQ")
_REQUEST = np.dtype(
    {
        "names": ["opcode", "file", "address", "length", "send_flags", "slot"],
        "formats": ["u1", "<i4", "<u8", "<u4", "<u4", "<u8"],
        "offsets": [0, 4, 16, 24, 28, 32],
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
        entries, results = parameters[:2]
        requests_at, results_at = parameters[10:17], parameters[19:25]
        size = max(requests_at[6] + entries * 4, results_at[5] + results * _RESULT.itemsize)
        rings = mmap.mmap(file, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=_OFFSET_RINGS)
        requests = mmap.mmap(
            file, entries * _REQUEST.itemsize, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=_OFFSET_REQUESTS
        )
        self._tail = np.frombuffer(rings, np.uint32, 1, requests_at[1])
        self._queue = np.frombuffer(rings, np.uint32, entries, requests_at[6])
        self._done, self._given = (np.frombuffer(rings, np.uint32, 1, results_at[field]) for field in (0, 1))
        self._results = np.frombuffer(rings, _RESULT, results, results_at[5])
        self._requests = np.frombuffer(requests, _REQUEST, entries)
        self._slots = np.arange(entries, dtype=np.uint32)
        self._requests["opcode"] = _SEND
        self._requests["send_flags"] = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        self._requests["slot"] = self._slots
        self._files, self._addresses, self._lengths = (self._requests[name] for name in ("file", "address", "length"))
        self.entries = entries

    @classmethod
    def open(cls, entries: int) -> Ring | None:
        """Make a ring for up to `entries` sockets at once, a power of two."""
        parameters = ctypes.create_string_buffer(_PARAMETERS.size)
        _PARAMETERS.pack_into(parameters, 0, 0, 0, _SUBMIT_ALL | _SINGLE_ISSUER | _DEFER_TASKRUN, *[0] * 25)
        file = _libc.syscall(_SETUP, entries, parameters)
        if file < 0:
            return None
        try:
            return cls(file, _PARAMETERS.unpack(parameters))
        except OSError:
            os.close(file)
            return None

    def write(self, files: Files, frame: bytes) -> Taken:
        """Write a frame to each of these sockets, at most `entries` of them."""
        count = len(files)
        assert count <= self.entries
        slots, mask = self._slots[:count], self.entries - 1
        self._files[:count] = files
        self._addresses[:count] = np.frombuffer(frame, np.uint8).ctypes.data
        self._lengths[:count] = len(frame)
        tail = int(self._tail[0])
        self._queue[(slots + tail) & mask] = slots
        self._tail[0] = (tail + count) & 0xFFFFFFFF
        queued = _libc.syscall(_ENTER, self._file, count, 0, _GETEVENTS, None, 0)
        done = int(self._done[0])
        given = (int(self._given[0]) - done) & 0xFFFFFFFF
        assert queued == given == count, f"io_uring took {queued} of {count} requests and gave {given} results"
        results = self._results[(slots + done) & (len(self._results) - 1)]
        self._done[0] = (done + count) & 0xFFFFFFFF
        taken = np.empty(count, np.int32)
        taken[results["slot"]] = results["taken"]
        return taken

    def close(self) -> None:
        """Give the ring back to the kernel."""
        os.close(self._file)
