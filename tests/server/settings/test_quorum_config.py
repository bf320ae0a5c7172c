"""`[quorum]`: URLs of servers are taken apart, what is not known is refused by its key, and no secret is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.settings.config import Config, ConfigError, gather, load
from server.settings.effective import effective
from server.settings.quorum import QuorumConfig, ServerAddress, parse_server

HUSH = "hush-hush"


def read(tmp_path: Path, text: str) -> Config:
    """Load a file whose section `[quorum]` has this text."""
    file = tmp_path / "scoreboard.toml"
    file.write_text(f"[quorum]\n{text}\n")
    return load(file, {}, {})


def refused(tmp_path: Path, text: str) -> ConfigError:
    """Load what must be refused, and give the error."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    return caught.value


def test_without_the_section_there_is_no_quorum() -> None:
    """The defaults are those of the document."""
    quorum = Config().quorum
    assert quorum == QuorumConfig((), "", "", "", "", "scoreboard", 3, 3, 1, 1_073_741_824)
    assert quorum.addresses == ()


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("nats://a.example:4223", ServerAddress("a.example", 4223, tls=False)),
        ("nats://a.example", ServerAddress("a.example", 4222, tls=False)),
        ("tls://10.0.0.1:1", ServerAddress("10.0.0.1", 1, tls=True)),
        ("TLS://localhost", ServerAddress("localhost", 4222, tls=True)),
        ("nats://[::1]:65535", ServerAddress("::1", 65_535, tls=False)),
        ("nats://[fd00::7]", ServerAddress("fd00::7", 4222, tls=False)),
        ("nats://u:p@a.example", ServerAddress("a.example", 4222, tls=False, user="u", password="p")),
        ("nats://u:p%2C%40%3A%2F@a", ServerAddress("a", 4222, tls=False, user="u", password="p,@:/")),
        ("nats://u:p:q@a", ServerAddress("a", 4222, tls=False, user="u", password="p:q")),
        ("nats://t0ken@a:7", ServerAddress("a", 7, tls=False, token="t0ken")),
        ("nats://%C3%A9@a", ServerAddress("a", 4222, tls=False, token="é")),
    ],
)
def test_a_url_is_taken_apart(url: str, address: ServerAddress) -> None:
    """Host, port, TLS, and who we are."""
    assert parse_server(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "", "a.example:4222", "http://a.example:4222", "ws://a.example", "nats:a", "nats://", "nats://:4222",
        "nats://a:0", "nats://a:65536", "nats://a:b", "nats://a b", "nats://a\t", "nats://::1:4222", "nats://[::1",
        "nats://10.0.0.256", "nats://ä.example", "nats://a/x", "nats://a/", "nats://a?", "nats://a#", "nats://a?b=c",
        "nats://@a", "nats://:p@a", "nats://u:@a", "nats://u:p@q@a", "nats://u:p%@a", "nats://u:p%2@a", "nats://%ff@a",
    ],
)  # fmt: skip
def test_what_is_no_server_is_refused(url: str) -> None:
    """Each near miss of the form."""
    with pytest.raises(ValueError):
        parse_server(url)


def test_a_list_in_a_variable_has_commas() -> None:
    """Or it is an array; a flag does not set it."""
    urls = ("nats://u:p@a:1", "tls://b", "nats://[::1]:3")
    for text in (",".join(urls), " , ".join(urls), str(list(urls))):
        config = load(None, {"SCOREBOARD_QUORUM_SERVERS": text}, {})
        assert config.quorum.servers == urls
        assert [address.port for address in config.quorum.addresses] == [1, 4222, 3]


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("servers = 'nats://a'", "quorum.servers", "must be a list of strings"),
        ("servers = ['nats://a', 'b']", "quorum.servers", "number 2 must be nats:// or tls:// and a host"),
        ("servers = ['nats://a/b']", "quorum.servers", "nothing may follow the port"),
        ("servers = ['nats://%ff@a']", "quorum.servers", "number 1 has %XX that are not UTF-8"),
        ("servers = ['nats://a', 'tls://A:4222']", "quorum.servers", "each server once, and number 2 was there"),
        ("server = ['nats://a']", "quorum.server", "did you mean servers?"),
        ("stream = ''", "quorum.stream", "at most 32 of"),
        ("stream = 'a.b'", "quorum.stream", '"a.b" is not allowed'),
        ("stream = 'a b'", "quorum.stream", "and not empty"),
        ("stream = 'é'", "quorum.stream", "at most 32 of"),
        (f"stream = '{'s' * 33}'", "quorum.stream", "at most 32 of"),
        ("replicas = 2", "quorum.replicas", "must be 3 or 5; 2 is not allowed"),
        ("replicas = 4", "quorum.replicas", "must be 3 or 5; 4 is not allowed"),
        ("replicas = 1", "quorum.replicas", "must be 3 or 5"),
        ("replicas = 7", "quorum.replicas", "must be 3 or 5"),
        ("replicas = '3'", "quorum.replicas", "must be 3 or 5"),
        ("silence_seconds = 0", "quorum.silence_seconds", "an integer from 1 to 60; 0 is"),
        ("silence_seconds = 61", "quorum.silence_seconds", "an integer from 1 to 60"),
        ("silence_seconds = 1.5", "quorum.silence_seconds", "an integer from 1 to 60"),
        ("publish_timeout_seconds = 0", "quorum.publish_timeout_seconds", "an integer from 1 to 60"),
        ("publish_timeout_seconds = 61", "quorum.publish_timeout_seconds", "an integer from 1 to 60"),
        ("stream_keep_bytes = 16777215", "quorum.stream_keep_bytes", "an integer from 16777216 (16 MiB)"),
        (f"stream_keep_bytes = {2**50 + 1}", "quorum.stream_keep_bytes", "to 1125899906842624 (1 PiB)"),
        ("certificate_file = 'a.pem'", "quorum.key_file", "is missing: quorum.certificate_file ("),
        ("key_file = 'a.key'", "quorum.certificate_file", "is missing: quorum.key_file ("),
    ],
)
def test_a_bad_value_is_refused_by_its_key(text: str, key: str, words: str, tmp_path: Path) -> None:
    """The full key, what is allowed, and the file."""
    error = refused(tmp_path, text)
    assert error.key == key
    assert words in error.message
    assert str(tmp_path) in error.message


def test_the_edges_are_allowed(tmp_path: Path) -> None:
    """The last value on each side."""
    text = "replicas = 5\nsilence_seconds = {0}\npublish_timeout_seconds = {0}\nstream_keep_bytes = {1}\nstream = '{2}'"
    for seconds, size, name in ((1, 2**24, "s"), (60, 2**50, "S_-9" * 8)):
        quorum = read(tmp_path, text.format(seconds, size, name)).quorum
        assert (quorum.silence_seconds, quorum.publish_timeout_seconds) == (seconds, seconds)
        assert (quorum.replicas, quorum.stream_keep_bytes, quorum.stream) == (5, size, name)


@pytest.mark.parametrize("user", [f"u:{HUSH}", HUSH])
def test_who_we_are_is_said_once(user: str, tmp_path: Path) -> None:
    """By a file of credentials, or in the URLs."""
    error = refused(tmp_path, f"servers = ['nats://a', 'nats://{user}@b']\ncredentials_file = 'x.creds'")
    assert error.key == "quorum.credentials_file"
    assert "only one may be set" in error.message
    assert HUSH not in str(error)
    assert read(tmp_path, "servers = ['nats://a']\ncredentials_file = 'x.creds'").quorum.credentials_file == "x.creds"


@pytest.mark.parametrize(
    "servers",
    [
        f"['nats://u:{HUSH}@a/b']",
        f"['nats://u:{HUSH}/@a']",
        f"['u:{HUSH}']",
        f"['nats://{HUSH}%zz@a']",
        f"'nats://{HUSH}@a'",
        f"[['nats://{HUSH}@a']]",
        f"['nats://u:{HUSH}@a', 'nats://{HUSH}@a']",
    ],
)
def test_a_refusal_shows_no_url(servers: str, tmp_path: Path) -> None:
    """What is no URL can't be masked, so its number must do; also of a list that a comma cut at the wrong place."""
    error = refused(tmp_path, f"servers = {servers}")
    assert error.key == "quorum.servers"
    assert HUSH not in str(error)
    with pytest.raises(ConfigError) as caught:
        load(None, {"SCOREBOARD_QUORUM_SERVERS": f"nats://u:{HUSH},{HUSH}@a"}, {})
    assert HUSH not in str(caught.value)


def test_a_configuration_is_shown_without_its_secrets() -> None:
    """The place of a server is no secret, and helps whoever looks for a fault."""
    environ = {"SCOREBOARD_QUORUM_SERVERS": f"nats://u:{HUSH}@a:1,tls://{HUSH}@[::1],nats://c"}
    given = gather(None, environ, {})
    config = load(None, environ, {})
    shown = {setting.key: setting.value for setting in effective(config, given)}
    assert shown["quorum.servers"] == ("nats://***@a:1", "tls://***@[::1]", "nats://c")
    assert str(config.quorum.addresses) == "(nats://a:1, tls://[::1]:4222, nats://c:4222)"
    for text in (repr(config), repr(config.quorum), str(config.quorum), str(shown), repr(config.quorum.addresses)):
        assert HUSH not in text
