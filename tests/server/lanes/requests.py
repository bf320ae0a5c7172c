"""Requests that the tests of the listener send, and a deadline that they wait for."""

from __future__ import annotations

from tests.server.lanes.support import UPGRADE

WATCH = b"GET /ws/scoreboard?boardId=a HTTP/1.1\r\n" + UPGRADE
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
SHORT = 0.05
"""A deadline that a test waits for."""


def get(path: bytes) -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n"
