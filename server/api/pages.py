"""The pages and documents that are the same for everybody, kept in memory with ETag and headers.

    pages = load_pages(directory)
    return pages["index"].answer(request)

A page loads nothing from other hosts and runs only its own scripts. Its Content-Security-Policy has the digest of each
inline script and style as the file had it, so injected code does not run. Hence a page has its scripts and styles
inline, and no `style=` or `on…=` attributes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import msgspec

from server.http.messages import NO_CACHE, Headers, Request, Response, etag_matches

HTML = "text/html; charset=utf-8"
PAGE_NAMES = ("index", "docs")

_SCRIPT = re.compile(rb"<script(?:\s[^>]*)?>(.*?)</script>", re.DOTALL | re.IGNORECASE)
_STYLE = re.compile(rb"<style(?:\s[^>]*)?>(.*?)</style>", re.DOTALL | re.IGNORECASE)


class Page(msgspec.Struct, frozen=True):
    body: bytes
    content_type: str
    etag: str
    headers: Headers

    def answer(self, request: Request) -> Response:
        """Give the document, or 304 to a client that has it."""
        if etag_matches(request.headers.get("if-none-match"), self.etag):
            return Response(304, headers=self.headers)
        return Response(200, self.body, self.content_type, self.headers)


def load_pages(directory: Path) -> dict[str, Page]:
    """Read the HTML pages, at the start. A missing page stops the start."""
    return {name: html_page((directory / f"{name}.html").read_bytes()) for name in PAGE_NAMES}


def html_page(body: bytes) -> Page:
    """Make a page of HTML, with its policy."""
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {_digests(_SCRIPT, body)}",
            f"style-src {_digests(_STYLE, body)}",
            "connect-src 'self'",  # includes ws: and wss: to the same host (CSP 3, section 6.7.2.8)
            "img-src 'self' data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )
    return document(body, HTML, (("content-security-policy", policy), ("referrer-policy", "no-referrer")))


def document(body: bytes, content_type: str, headers: Headers = ()) -> Page:
    """Make a document with its ETag, and with more headers."""
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    common = (("etag", etag), *NO_CACHE)
    return Page(body, content_type, etag, common + headers)


def _digests(pattern: re.Pattern[bytes], body: bytes) -> str:
    digests = [base64.b64encode(hashlib.sha256(inline).digest()).decode() for inline in pattern.findall(body)]
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
