"""Allowed origins: what may be written, and which Origin headers each form allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.settings.origins import OriginList, frame_ancestors, parse_origins


def parsed(*texts: str) -> OriginList:
    """A list that does not allow everything."""
    origins = parse_origins(texts)
    assert origins is not None
    return origins


def test_origins_are_compared_as_browsers_write_them() -> None:
    """Lower case, without the port that the scheme implies."""
    origins = parsed("HTTPS://Game.Example:443", "http://game.example:80", "http://[::1]:3000", "capacitor://localhost")
    assert origins.exact == {
        "https://game.example", "http://game.example", "http://[::1]:3000", "capacitor://localhost"
    }  # fmt: skip
    assert "HTTPS://GAME.example:443" in origins


@pytest.mark.parametrize(
    ("written", "allowed", "refused"),
    [
        (
            "https://*.example.com",
            [
                "https://a.example.com", "https://a.b-c.example.com", "HTTPS://A.Example.COM:443",
                "https://_x.example.com",
            ],
            [
                "https://example.com", "https://.example.com", "https://evil-example.com", "https://a..example.com",
                "https://a.example.com:8443", "http://a.example.com", "https://a.example.com.evil.example",
                "https://a.example.com/", "https://evil.example/.example.com", "https://evil.example#.example.com",
                "https://evil.example:80.example.com", "https://u@a.example.com", "https://a.example.com\n",
                "https://*.example.com", "https://evil.example\\.example.com", "https://aexampleXcom", "a.example.com",
            ],
        ),
        (
            "https://*.example.com:8443",
            ["https://a.example.com:8443"],
            ["https://a.example.com", "https://example.com:8443"],
        ),
        ("https://*.example.com:*", ["https://a.example.com", "https://a.example.com:1"], ["https://example.com:1"]),
        (
            "http://localhost:*",
            ["http://localhost", "http://localhost:3000", "http://LOCALHOST:80", "http://localhost:65535"],
            [
                "https://localhost:3000", "http://localhost:", "http://localhost:x", "http://localhost:3000x",
                "http://localhost.evil.example:3000", "http://a.localhost:3000", "http://localhost:123456",
                "http://localhost:80@evil.example",
            ],
        ),
        ("http://[::1]:*", ["http://[::1]", "http://[::1]:9"], ["http://[::2]:9", "http://::1:9"]),
        ("http://127.0.0.1:*", ["http://127.0.0.1:9"], ["http://127a0.0.1:9", "http://127.0.0.10:9"]),
        ("null", ["null"], ["", "nul", "https://null", "null, https://a.example"]),
    ],
)  # fmt: skip
def test_what_each_form_allows(written: str, allowed: list[str], refused: list[str]) -> None:
    """A star is one label or more, or a whole port; nothing that only begins or ends alike is allowed."""
    origins = parsed(written, "https://other.example")
    assert [origin for origin in allowed if origin not in origins] == []
    assert [origin for origin in refused if origin in origins] == []
    assert "https://other.example" in origins


def test_a_star_alone_allows_all() -> None:
    """And stands alone."""
    assert parse_origins(("*",)) is None
    with pytest.raises(ValueError, match="stands alone"):
        parse_origins(("*", "null"))
    assert "https://a.example" not in parsed()


@pytest.mark.parametrize(
    "text",
    [
        "", "https://", "https://a.example?", "https://a.example#", "https://a@b.example", "//a.example", "nulls",
        "https://a.example:99999", "https://ä.example", "https://[::1", "https://a.example/", "https://*.example/",
        "https://*", "https://*.", "https://*.*.example", "https://a.*.example", "https://a*.example", "*://a.example",
        "https://*a.example", "https://*.[::1]", "https://*.127.0.0.1", "https://a.example:**", "https://a.example:8*",
        "https://a..example", "https://300.1.1.1", "https://*.example.com:99999", "*.example.com",
    ],
)  # fmt: skip
def test_what_is_no_origin_is_refused(text: str) -> None:
    """An origin is a scheme, a host and a port; a star is the whole front of a host, or a whole port."""
    with pytest.raises(ValueError, match=r"SCHEME://HOST|without a path"):
        parse_origins((text,))


@given(st.text(max_size=400))
def test_whatever_is_sent_is_matched_or_not(origin: str) -> None:
    """Nothing is raised, and a pattern allows nothing without its own end."""
    origins = parsed("https://*.example.com", "http://localhost:*")
    if origin in origins:
        assert origin.lower().startswith(("https://", "http://localhost"))


@pytest.mark.parametrize(
    ("written", "policy"),
    [
        (("*",), "*"),
        ((), "'none'"),
        (("null",), "'none'"),
        (("https://Game.Example", "null", "https://game.example"), "https://game.example"),
        (
            ("https://*.example.com", "http://localhost:*", "http://127.0.0.1:3000", "capacitor://localhost"),
            "https://*.example.com http://localhost:* http://127.0.0.1:3000 capacitor://localhost",
        ),
        (("http://[::1]:3000", "https://my_host.example"), "'none'"),
    ],
)
def test_who_may_frame_is_never_more_than_the_list(written: tuple[str, ...], policy: str) -> None:
    """What a policy has no form for may not: `null`, an address in brackets, an underscore."""
    parse_origins(written)
    assert frame_ancestors(written) == policy
