"""Documents kept in memory: their ETags, and the policy that lets a page run nothing but its own scripts."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from pathlib import Path

import pytest

import server
from server.api.pages import ELEMENT, ELEMENT_FILE, PAGE_NAMES, Page, document, html_page, load_pages
from server.http.messages import Request

REAL = Path(server.__file__).parent / "pages"


def policy_of(page: Page) -> dict[str, str]:
    """The content security policy, by directive."""
    policy = dict(page.headers)["content-security-policy"]
    return dict(directive.split(" ", 1) for directive in policy.split("; "))


def digest_of(inline: bytes) -> str:
    """What a policy says of one inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(inline).digest()).decode()}'"


def test_the_policy_names_each_inline_script_and_style() -> None:
    """Whatever is between the tags, byte by byte; everything else is forbidden."""
    page = html_page(b"<style>\np{}</style><script>a<b</script><SCRIPT type='module'>c</SCRIPT>")
    policy = policy_of(page)
    assert policy["default-src"] == "'none'"
    assert policy["style-src"] == digest_of(b"\np{}")
    assert policy["script-src"] == f"{digest_of(b'a<b')} {digest_of(b'c')}"
    assert policy["frame-ancestors"] == "'none'"


def test_a_page_without_scripts_may_run_none() -> None:
    """No digest, no permission."""
    assert policy_of(html_page(b"<p>hello</p>"))["script-src"] == "'none'"


def test_a_page_that_names_a_script_may_run_those_of_its_server() -> None:
    """And its inline ones by digest, as before. A script that is named has no digest: there is nothing inline."""
    named = b'<script type="module" src="scoreboard.js"></script>'
    assert policy_of(html_page(named))["script-src"] == "'self'"
    assert policy_of(html_page(named + b"<script>a</script>"))["script-src"] == f"'self' {digest_of(b'a')}"
    assert policy_of(html_page(b"<script data-src=x>a</script>"))["script-src"] == digest_of(b"a")


def test_the_etag_is_that_of_the_bytes() -> None:
    """The same page has the same one after a restart; another page has another."""
    one, same, other = (html_page(body) for body in (b"a", b"a", b"b"))
    assert one.etag == same.etag != other.etag
    assert one.answer(Request("GET", "/", headers={"if-none-match": one.etag})).status == 304
    assert other.answer(Request("GET", "/", headers={"if-none-match": one.etag})).status == 200


def test_data_has_no_page_policy() -> None:
    """A JSON document is not rendered."""
    page = document(b"{}", "application/json")
    assert dict(page.headers).keys() == {"etag", "cache-control", "x-content-type-options"}


@pytest.mark.parametrize("name", PAGE_NAMES)
def test_the_real_pages_live_by_their_policy(name: str) -> None:
    """They load nothing from another host, and have no scripts or styles in attributes, which the policy would stop."""
    page = load_pages(REAL)[name]
    text = page.body.decode()
    outside_scripts = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    assert not re.search(r"<[^>]*\s(style|on[a-z]+)=", outside_scripts)
    assert not re.search(r"""<(script|link|img|iframe)[^>]*\s(src|href)=["']?(https?:)?//""", text)
    assert "'sha256-" in policy_of(page)["script-src"]


def test_a_page_holds_the_files_that_it_names(tmp_path: Path) -> None:
    """A script that is kept in several files is one inline script, with one digest."""
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "one.js").write_bytes(b"a();\n")
    (tmp_path / "part" / "two.js").write_bytes(b"b('\\\\1');\n")
    (tmp_path / ELEMENT_FILE).write_bytes(b"")
    for name in PAGE_NAMES:
        (tmp_path / f"{name}.html").write_bytes(b"<script>\n/*+ part/one.js */\n/*+ part/two.js */\n</script>")
    page = load_pages(tmp_path)["index"]
    assert page.body == b"<script>\na();\nb('\\\\1');\n</script>"
    assert policy_of(page)["script-src"] == digest_of(b"\na();\nb('\\\\1');\n")


def test_a_missing_part_stops_the_start(tmp_path: Path) -> None:
    """A page without a part of its script would be broken for everybody."""
    for name in PAGE_NAMES:
        (tmp_path / f"{name}.html").write_bytes(b"<script>\n/*+ gone.js */\n</script>")
    with pytest.raises(FileNotFoundError):
        load_pages(tmp_path)


def test_the_console_is_in_no_frame_and_no_search_engine() -> None:
    """Nor can a text become markup in it. The other pages may be found."""
    pages = load_pages(REAL)
    console = dict(pages["console"].headers)
    assert console["x-robots-tag"] == "noindex"
    assert b'<meta name="robots" content="noindex">' in pages["console"].body
    assert policy_of(pages["console"])["frame-ancestors"] == "'none'"
    assert policy_of(pages["console"])["require-trusted-types-for"] == "'script'"
    assert "x-robots-tag" not in dict(pages["index"].headers)


def test_the_scripts_of_the_console_make_no_markup() -> None:
    """Texts become text nodes. The whole script is on the page: no mark of a part is left."""
    body = load_pages(REAL)["console"].body.decode()
    assert "/*+" not in body
    assert not re.search(r"(inner|outer)HTML|insertAdjacentHTML|document\.(write|cookie)|eval\(|new Function", body)
    assert "localStorage" not in body


TAKEN = [
    ("gzip", True), ("br, gzip;q=0.5", True), ("GZIP", True), ("x-gzip", True), ("gzip; q=1.0", True),
    ("", False), ("identity", False), ("gzip;q=0", False), ("gzip; Q=0.000, br", False), ("gzipped", False),
]  # fmt: skip


@pytest.mark.parametrize(("accept", "packed"), TAKEN)
def test_who_takes_gzip_gets_the_element_packed(accept: str, packed: bool) -> None:
    """The same bytes in the end. Both have an ETag of their own, and say that they depend on what a client takes."""
    element = load_pages(REAL)[ELEMENT]
    answer = element.answer(Request("GET", "/scoreboard.js", headers={"accept-encoding": accept}))
    headers = dict(answer.headers)
    assert headers["vary"] == "Accept-Encoding"
    assert headers.get("content-encoding") == ("gzip" if packed else None)
    assert (gzip.decompress(answer.body) if packed else answer.body) == element.body
    assert (headers["etag"] == element.etag) is not packed
    known = {"accept-encoding": accept, "if-none-match": headers["etag"]}
    again = element.answer(Request("GET", "/scoreboard.js", headers=known))
    assert (again.status, dict(again.headers)["etag"]) == (304, headers["etag"])


def test_the_element_is_made_of_its_source() -> None:
    """The file that is sent names the digest of the source that it was made of: `npm run build` in clients/js."""
    digest = hashlib.sha256((REAL / "scoreboard.js").read_bytes()).hexdigest()[:16]
    assert load_pages(REAL)[ELEMENT].body.startswith(f"/* scoreboard.js {digest} */\n".encode())


def test_the_element_is_small() -> None:
    """12 KB, as it is sent."""
    packed = load_pages(REAL)[ELEMENT].packed
    assert packed is not None
    assert len(packed.body) <= 12 * 1024


def test_a_missing_page_stops_the_start(tmp_path: Path) -> None:
    """Better than a server whose front page is an error."""
    with pytest.raises(FileNotFoundError):
        load_pages(tmp_path)
