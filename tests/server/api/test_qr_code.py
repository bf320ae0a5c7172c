"""The QR code of a wall: a reader finds the address in it, and the address is on the host of the request."""

from __future__ import annotations

import re
from urllib.parse import quote

import numpy as np
import pytest
import zxingcpp

from server.api.qr_code import ADDRESS_CHARACTERS_MAX, QUIET_MODULES, page_address, qr_svg
from server.http.messages import Refused

HOST = "board.example:8080"


def modules_of(svg: bytes) -> np.ndarray:
    """Draw the code: a byte for each module, 0 is dark. Its one path has runs of dark modules, row by row."""
    side = int(re.search(rb'viewBox="0 0 (\d+) \1"', svg)[1])  # type: ignore[index]  # without one the test fails
    drawn = np.full((side, side), 255, dtype=np.uint8)
    x = y = 0.0
    path = re.search(rb'stroke="#000" d="([^"]+)"', svg)[1].decode()  # type: ignore[index]  # as above
    for letter, numbers in re.findall(r"([Mmh])([-\d. ]+)", path):
        values = [float(value) for value in numbers.split()]
        if letter == "h":
            drawn[int(y), int(x) : int(x + values[0])] = 0
            x += values[0]
        else:
            x, y = (values[0], values[1]) if letter == "M" else (x + values[0], y + values[1])
    return drawn


def read(svg: bytes) -> str:
    """Read a code as a phone does."""
    pixels = modules_of(svg).repeat(8, axis=0).repeat(8, axis=1)
    [found] = zxingcpp.read_barcodes(pixels)
    return found.text


@pytest.mark.parametrize(
    "address",
    [
        "http://b/",
        f"http://{HOST}/",
        "https://board.example/live/?boardId=" + quote("größe 🎯/1", safe=""),
        "http://b/?boardId=" + "x" * 300,
    ],
)
def test_a_reader_finds_the_address(address: str) -> None:
    """Short and long ones; around it there is the quiet zone."""
    svg = qr_svg(address)
    assert read(svg) == address
    drawn = modules_of(svg)
    inner = drawn[QUIET_MODULES:-QUIET_MODULES, QUIET_MODULES:-QUIET_MODULES]
    assert (drawn == 0).sum() == (inner == 0).sum()
    assert inner[0, 0] == 0
    assert b"http" not in svg.replace(b"http://www.w3.org/2000/svg", b""), "the drawing asks for nothing"


@pytest.mark.parametrize(
    ("board_id", "base", "address"),
    [
        ("main", None, "http://board.example:8080/"),
        ("a/b ü", None, "http://board.example:8080/?boardId=a%2Fb%20%C3%BC"),
        ("main", "https://board.example/", "https://board.example/"),
        ("main", "https://Board.Example/live/wall", "https://Board.Example/live/"),
        (
            "cup",
            "http://board.example:9000/x/y/wall?boardId=no#token=secret",
            "http://board.example:9000/x/y/?boardId=cup",
        ),
        ("main", "https://board.example", "https://board.example/"),
    ],
)
def test_the_address_is_that_of_the_page(board_id: str, base: str | None, address: str) -> None:
    """Scheme, port and path as the wall is seen; no token is in it."""
    assert page_address(HOST, board_id, base) == address


@pytest.mark.parametrize(
    "base",
    [
        "https://evil.example/", "//board.example/", "javascript:alert(1)//board.example/", "https://board.example@evil.example/",
        "https://user@board.example/", "https://board.example.evil.example/", "ftp://board.example/", "", "https://[board.example/",
        "https://board.example:port/", "https://board.example/\u00fc/",
    ],
)  # fmt: skip
def test_no_code_leads_to_another_host(base: str) -> None:
    """The server would draw it for anybody."""
    with pytest.raises(Refused) as caught:
        page_address(HOST, "main", base)
    assert (caught.value.status, caught.value.details) == (400, {"field": "base"})


@pytest.mark.parametrize("host", ["", "a b", "x/y", "evil.example/?", "a\r\nb", "[::1"])
def test_a_request_without_a_host_gets_no_code(host: str) -> None:
    """There is no address then."""
    with pytest.raises(Refused) as caught:
        page_address(host, "main")
    assert caught.value.details == {"field": "Host"}
    assert page_address("[::1]:8080", "main") == "http://[::1]:8080/"


def test_an_address_that_no_camera_reads_is_refused() -> None:
    """An id of many letters that all are written with percent signs."""
    with pytest.raises(Refused) as caught:
        page_address(HOST, "ü" * 128)
    assert caught.value.details == {"field": "boardId"}
    assert len(page_address(HOST, "x" * 128)) < ADDRESS_CHARACTERS_MAX
