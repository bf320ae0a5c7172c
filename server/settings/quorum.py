"""The configuration of `[quorum]`: where the replicated stream is, and how long a node waits for it. Pure.

    for server in config.quorum.addresses:
        server.host, server.port, server.tls, server.user, server.password, server.token

Rules:
- `servers` lists URLs of the NATS servers: `nats://HOST:PORT` or `tls://HOST:PORT`, each once. A port that is left out
  is 4222. `USER:PASSWORD@` or `TOKEN@` may stand before the host; other characters than letters and digits in them are
  written as `%XX`, as in every URL.
- A user, a password and a token are shown nowhere: not in a refusal, not in a representation, not by `config check`.
- Who we are is said in one way: by `credentials_file`, or in the URLs.
- A certificate has a key, and a key a certificate.
- An empty list is no quorum. `serve --quorum` refuses it; all other commands need none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import unquote

import msgspec
from msgspec import Meta

from server.settings import values
from server.settings.environment import Key, dotted
from server.settings.given import Given, Text, Texts
from server.settings.values import ConfigError

PORT = 4222
"""The port of NATS for clients, where a URL has none."""

STREAM_KEEP_BYTES_MIN, STREAM_KEEP_BYTES_MAX = 2**24, 2**50
"""The least holds a few of the largest frames, so that a standby that lags a little still finds its next one."""

SERVER_ALLOWED = (
    'must be nats:// or tls:// and a host, as "nats://nats-1.example:4222"; USER:PASSWORD@ or TOKEN@ may stand before '
    "the host, with their special characters written as %XX"
)
_STREAM = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
_PERCENT_FAULT = re.compile(r"%(?![0-9A-Fa-f]{2})", re.ASCII)

Seconds = Annotated[int, Meta(ge=1, le=60, description="an integer from 1 to 60")]
Replicas = Annotated[int, Meta(ge=3, le=5, description="3 or 5")]
StreamBytes = Annotated[
    int,
    Meta(
        ge=STREAM_KEEP_BYTES_MIN,
        le=STREAM_KEEP_BYTES_MAX,
        description=f"an integer from {STREAM_KEEP_BYTES_MIN} (16 MiB) to {STREAM_KEEP_BYTES_MAX} (1 PiB)",
    ),
]


class ServerAddress(msgspec.Struct, frozen=True):
    """One server of the list. With a `user` there is a `password`; `token` stands alone. Empty: the URL has none."""

    host: str
    port: int
    tls: bool
    user: str = ""
    password: str = ""
    token: str = ""

    def __repr__(self) -> str:
        """Show the place alone, because an address gets into logs and error reports."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tls' if self.tls else 'nats'}://{host}:{self.port}"


class QuorumConfig(msgspec.Struct, frozen=True):
    """See above. `stream_keep_bytes`: what the stream holds at least before frames in two archives are purged."""

    servers: Texts = ()
    credentials_file: Text = ""
    ca_file: Text = ""
    certificate_file: Text = ""
    key_file: Text = ""
    stream: Text = "scoreboard"
    replicas: Replicas = 3
    silence_seconds: Seconds = 3
    publish_timeout_seconds: Seconds = 1
    stream_keep_bytes: StreamBytes = 2**30

    @property
    def addresses(self) -> tuple[ServerAddress, ...]:
        """The servers, taken apart."""
        return parse_servers(self.servers)

    @property
    def servers_have_secrets(self) -> bool:
        """Whether a URL says who we are."""
        return any("@" in url for url in self.servers)

    def __repr__(self) -> str:
        """Show the URLs without their users."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        fields["servers"] = tuple(map(values.masked_url, self.servers))
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in fields.items())})"


def parse_server(text: str) -> ServerAddress:
    """Parse one URL. Raises ValueError with what is allowed."""
    url = values.split_url(text)
    if url is None or url.scheme not in ("nats", "tls") or not url.hostname or not values.is_host(url.hostname):
        raise ValueError(SERVER_ALLOWED)
    if url.path or url.query or url.fragment or "?" in text or "#" in text or url.port == 0:
        raise ValueError(f"{SERVER_ALLOWED}; nothing may follow the port")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(SERVER_ALLOWED)
    before, at, _ = url.netloc.rpartition("@")
    user, colon, password = before.partition(":")
    if at and (not user or (colon and not password) or "@" in before or _PERCENT_FAULT.search(before)):
        raise ValueError(SERVER_ALLOWED)
    user, password = unquote(user, errors="strict"), unquote(password, errors="strict")
    place = (url.hostname, url.port or PORT, url.scheme == "tls")
    return ServerAddress(*place, user, password) if colon else ServerAddress(*place, token=user)


def parse_servers(texts: tuple[str, ...]) -> tuple[ServerAddress, ...]:
    """Parse the list. Raises ValueError, which names a server by its number: its URL may hold a secret."""
    servers: list[ServerAddress] = []
    for number, text in enumerate(texts, 1):
        try:
            server = parse_server(text)
        except UnicodeDecodeError:
            raise ValueError(f"number {number} has %XX that are not UTF-8") from None
        except ValueError as error:
            raise ValueError(f"number {number} {error}") from None
        if any((server.host, server.port) == (other.host, other.port) for other in servers):
            raise ValueError(f"must name each server once, and number {number} was there before")
        servers.append(server)
    return tuple(servers)


def check_stream(text: str) -> None:
    """Check the name of a stream. Its subjects and its files are named after it."""
    if not _STREAM.fullmatch(text):
        raise ValueError("must be at most 32 of A-Z, a-z, 0-9, _ and -, and not empty")


def check_replicas(count: int) -> None:
    """Check the number of copies. With an even number one more server would help nobody: a majority is as large."""
    if count not in (3, 5):
        raise ValueError("must be 3 or 5")


def check_whole(quorum: QuorumConfig, given: Mapping[Key, Given]) -> None:
    """Check what the settings say together. Raises `ConfigError`."""

    def origin(name: str) -> str:
        return f"{dotted(('quorum', name))} ({given['quorum', name].origin})"

    if quorum.credentials_file and quorum.servers_have_secrets:
        both = f"{origin('credentials_file')} and a user or a token in {origin('servers')}"
        raise ConfigError("quorum.credentials_file", f"only one may be set of {both}")
    for name, other in (("certificate_file", "key_file"), ("key_file", "certificate_file")):
        if getattr(quorum, name) and not getattr(quorum, other):
            raise ConfigError(f"quorum.{other}", f"is missing: {origin(name)} needs it")
