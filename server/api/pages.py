"""The pages and documents that are the same for everybody, kept in memory with ETag and headers.

    pages = load_pages(directory)
    return pages["index"].answer(request)

A page loads nothing from other hosts and runs only its own scripts. Its Content-Security-Policy has the digest of each
inline script and style as the file had it, so injected code does not run. A page that names a script by `src` may run
scripts of this server, too: there is one, the element. Hence a page has no `style=` or `on…=` attributes.

A line `/*+ NAME */` in a page stands for the file of that name. So a large script is kept in files of one purpose each,
and is sent inline all the same. The console is `noindex`, and its policy lets no text become markup (Trusted Types).

The element is for pages of other sites. Caches may keep it for a short time without asking. A client that takes gzip
gets it packed, with an ETag of its own.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from pathlib import Path

import msgspec

from server.http.messages import NO_CACHE, NO_SNIFF, Headers, Request, Response, etag_matches

HTML = "text/html; charset=utf-8"
JAVASCRIPT = "text/javascript; charset=utf-8"
PAGE_NAMES = ("index", "docs", "console", "embed", "wall")
ELEMENT = "element"
ELEMENT_FILE = "scoreboard.min.js"
"""Made of `scoreboard.js` by `clients/js/build.mjs`."""
ELEMENT_SECONDS = 300
"""How long a cache may keep the element. Old and new ones work with old and new servers, so minutes do no harm."""

_SCRIPT = re.compile(rb"<script(?:\s(?![^>]*\ssrc=|src=)[^>]*)?>(.*?)</script>", re.DOTALL | re.IGNORECASE)
_OWN_FILE = re.compile(rb"<script\s(?:[^>]*\s)?src=", re.IGNORECASE)
_PART = re.compile(rb"^/\*\+ (\S+) \*/$", re.MULTILINE)
_STYLE = re.compile(rb"<style(?:\s[^>]*)?>(.*?)</style>", re.DOTALL | re.IGNORECASE)


class Page(msgspec.Struct, frozen=True):
    body: bytes
    content_type: str
    etag: str
    headers: Headers
    packed: Page | None = None
    """The same, for a client that takes gzip."""

    def answer(self, request: Request) -> Response:
        """Give the document, or 304 to a client that has it."""
        if self.packed is not None and takes_gzip(request.headers.get("accept-encoding", "")):
            return self.packed.answer(request)
        if etag_matches(request.headers.get("if-none-match"), self.etag):
            return Response(304, headers=self.headers)
        return Response(200, self.body, self.content_type, self.headers)


def load_pages(directory: Path) -> dict[str, Page]:
    """Read the HTML pages and the element, at the start. A missing file, or a missing part of one, stops the start."""
    pages = {name: html_page(_read(directory, name), private=name == "console") for name in PAGE_NAMES}
    return {**pages, ELEMENT: module((directory / ELEMENT_FILE).read_bytes())}


def _read(directory: Path, name: str) -> bytes:
    """Read a page, with the files that it names in their places."""
    body = (directory / f"{name}.html").read_bytes()
    return _PART.sub(lambda part: (directory / part[1].decode()).read_bytes().rstrip(), body)


def html_page(body: bytes, *, private: bool = False) -> Page:
    """Make a page of HTML, with its policy. `private`: no search engine should list it, and no text becomes markup."""
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {_scripts(body)}",
            f"style-src {_digests(_STYLE, body)}",
            "connect-src 'self'",  # includes ws: and wss: to the same host (CSP 3, section 6.7.2.8)
            "img-src 'self' data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            *(["require-trusted-types-for 'script'", "trusted-types 'none'"] if private else []),
        ]
    )
    headers = (("content-security-policy", policy), ("referrer-policy", "no-referrer"))
    return document(body, HTML, (*headers, ("x-robots-tag", "noindex")) if private else headers)


def framed(page: Page, ancestors: str) -> Page:
    """Let the pages that a policy names frame this one (`frame-ancestors`). It is another document then."""
    headers = tuple(
        (name, value.replace("frame-ancestors 'none'", f"frame-ancestors {ancestors}")) for name, value in page.headers
    )
    etag = document(page.body + ancestors.encode(), page.content_type).etag
    return Page(page.body, page.content_type, etag, tuple((n, etag if n == "etag" else value) for n, value in headers))


def module(body: bytes) -> Page:
    """Make a script that pages of other sites load."""
    cached = (("cache-control", f"public, max-age={ELEMENT_SECONDS}"), NO_SNIFF)
    headers = (("cross-origin-resource-policy", "cross-origin"), ("vary", "Accept-Encoding"))
    plain = document(body, JAVASCRIPT, headers, cached)
    packed = document(gzip.compress(body, mtime=0), JAVASCRIPT, (*headers, ("content-encoding", "gzip")), cached)
    return msgspec.structs.replace(plain, packed=packed)


def takes_gzip(accept_encoding: str) -> bool:
    """Read an Accept-Encoding header (RFC 9110, 12.5.3): whether it names gzip, with a weight above 0."""
    for item in accept_encoding.split(","):
        name, _, weight = item.partition(";")
        if name.strip().lower() in {"gzip", "x-gzip"}:
            return not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight, re.IGNORECASE)
    return False


def document(body: bytes, content_type: str, headers: Headers = (), cached: Headers = NO_CACHE) -> Page:
    """Make a document with its ETag, with more headers, and with what caches may do with it."""
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return Page(body, content_type, etag, (("etag", etag), *cached, *headers))


def _scripts(body: bytes) -> str:
    inline = _digests(_SCRIPT, body)
    if not _OWN_FILE.search(body):
        return inline
    return "'self'" if inline == "'none'" else f"'self' {inline}"


def _digests(pattern: re.Pattern[bytes], body: bytes) -> str:
    digests = [base64.b64encode(hashlib.sha256(inline).digest()).decode() for inline in pattern.findall(body)]
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
