"""One connection to one server of NATS: how it begins, what is sent and heard on it, and how it ends.

    connection = await connect(address, options, name="node-1")
    connection.send_nowait(protocol.publish("subject", b"…"))
    await connection.run(take)              # until it is lost: `take(message)` gets each message

The server speaks first (INFO). Then comes TLS, if either side wants it, and then CONNECT with PING: the PONG says that
the server has let us in.

Rules:
- TLS is used if the URL says tls://, if one of its files is configured, or if the server demands it. A server that
  should have TLS and has none is refused: somebody may stand between.
- Bytes that come between INFO and TLS end the connection: nobody has vouched for them.
- Everything that is sent waits in one outbox, which one task sends. So a caller never waits for the socket, and one
  that is cancelled leaves no half message behind.
- A connection that brings nothing is asked (PING), and is lost if it still brings nothing.
- What a person must mend is `StreamRefused`; anything else is `ConnectionLost`. Neither holds a secret.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import trio

from engine.errors import ScoreboardError
from server.quorum import nats_limits as limits
from server.quorum import nats_protocol as protocol
from server.quorum.nats_credentials import KEY as CREDENTIALS_KEY
from server.quorum.nats_credentials import read_credentials
from server.quorum.nats_protocol import Error, Info, Message, Parser, Ping, Pong, ProtocolFault
from server.quorum.stream import StreamRefused
from server.settings.quorum import ServerAddress, parse_servers

_AUTHORIZATION = (
    "authorization violation",
    "authentication timeout",
    "authentication expired",
    "authentication revoked",
    "user authentication expired",
    "user authentication revoked",
    "account authentication expired",
)
"""What a server says to one that it does not let in, or not any longer."""


class NatsOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where the servers are, who we are to them, and the stream. The fields are those of `[quorum]`.

    `publish_timeout_s` is the time for an answer to a frame or a beat.
    """

    servers: Sequence[str]
    stream: str = "scoreboard"
    replicas: int = 3
    publish_timeout_s: float = 1.0
    credentials_file: str = ""
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""

    def __repr__(self) -> str:
        """Show the addresses without their users."""
        return f"NatsOptions(servers={self.addresses}, stream={self.stream!r}, replicas={self.replicas})"

    @property
    def addresses(self) -> tuple[ServerAddress, ...]:
        """The servers, taken apart. Raises `StreamRefused`."""
        try:
            addresses = parse_servers(tuple(self.servers))
        except ValueError as error:
            raise StreamRefused(f"{error}.", key="quorum.servers") from None
        if not addresses:
            raise StreamRefused("no server is named.", key="quorum.servers")
        return addresses


class ConnectionLost(ScoreboardError):
    """The connection ended, or did not begin. Another server may answer, or the same one later."""


class Connection:
    """A connection that a server has accepted. `info` is the newest that it said of itself."""

    def __init__(self, address: ServerAddress, stream: trio.abc.Stream, parser: Parser, info: Info) -> None:
        self.address = address
        self.info = info
        self._stream = stream
        self._parser = parser
        self._outbox: list[bytes] = []
        self._waiting_bytes = 0
        self._wake = trio.Event()
        self._heard_at = trio.current_time()
        self._cut_for: str | None = None
        self._scope = trio.CancelScope()

    @property
    def waiting_bytes(self) -> int:
        """What is still to be sent."""
        return self._waiting_bytes

    @property
    def is_cut(self) -> bool:
        """Whether it was cut, and will end in a moment."""
        return self._cut_for is not None

    def send_nowait(self, data: bytes) -> None:
        """Have bytes sent, in the order of the calls."""
        self._outbox.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > limits.OUTBOX_BYTES_MAX:
            self.cut("it does not read what is sent to it")
        self._wake.set()

    def cut(self, reason: str) -> None:
        """End the connection: `run` raises `ConnectionLost` with the reason."""
        self._cut_for = self._cut_for or reason
        self._scope.cancel()

    async def run(self, take: Callable[[Message | Error], None]) -> None:
        """Send and hear until the connection is lost; then close it, and raise `ConnectionLost`.

        `take` gets each message, and the errors that do not end the connection.
        """
        fault: Exception | None = None
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send)
                    nursery.start_soon(self._ask)
                    nursery.start_soon(self._hear, take)
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError, ProtocolFault, ConnectionLost) as group:
            fault = group.exceptions[0]
        finally:
            await trio.aclose_forcefully(self._stream)
        raise ConnectionLost(self._cut_for or _said(fault)) from fault

    async def aclose(self) -> None:
        """End a connection that never ran."""
        await trio.aclose_forcefully(self._stream)

    async def _send(self) -> None:
        while True:
            while not self._outbox:
                self._wake = trio.Event()
                await self._wake.wait()
            data = b"".join(self._outbox)
            self._outbox.clear()
            await self._stream.send_all(data)
            self._waiting_bytes -= len(data)

    async def _ask(self) -> None:
        """Send a PING whenever the server was quiet, and give it up if it stays so."""
        while True:
            heard_at = self._heard_at
            await trio.sleep_until(heard_at + limits.QUIET_SECONDS)
            if self._heard_at != heard_at:
                continue
            self.send_nowait(protocol.PING)
            await trio.sleep(limits.SILENCE_SECONDS)
            if self._heard_at == heard_at:
                raise ConnectionLost("it answers no PING")

    async def _hear(self, take: Callable[[Message | Error], None]) -> None:
        while True:
            while (event := self._parser.next_event()) is not None:
                match event:
                    case Message():
                        take(event)
                    case Ping():
                        self.send_nowait(protocol.PONG)
                    case Info():
                        self.info = event
                        if event.ldm:
                            raise ConnectionLost("it is going to stop (lame duck mode)")
                    case Error() if event.text.casefold().startswith("permissions violation"):
                        take(event)
                    case Error():
                        raise ConnectionLost(f"it said: {event.text}")
            self._parser.feed(await _receive(self._stream))
            self._heard_at = trio.current_time()


async def connect(
    address: ServerAddress,
    options: NatsOptions,
    *,
    name: str,
    check: Callable[[ServerAddress, Info], None] | None = None,
) -> Connection:
    """Connect to a server and have it let us in, if `check` finds no fault in what it says of itself.

    Raises `ConnectionLost` and `StreamRefused`.
    """
    stream: trio.abc.Stream | None = None
    try:
        with trio.fail_after(limits.CONNECT_SECONDS):
            stream = await trio.open_tcp_stream(address.host, address.port)
            parser = Parser()
            info = await _next(stream, parser)
            if not isinstance(info, Info):
                raise ConnectionLost("it is no server of NATS")
            stream = await _secured(stream, address, options, parser, info)
            await stream.send_all(protocol.connect(_introduction(address, options, info, name)) + protocol.PING)
            while not isinstance(event := await _next(stream, parser), Pong):
                if isinstance(event, Error):
                    raise _refusal(address, options, event.text)
            if check is not None:
                check(address, info)
            connection = Connection(address, stream, parser, info)
            stream = None
            return connection
    except trio.TooSlowError:
        raise ConnectionLost(f"it does not answer within {limits.CONNECT_SECONDS:.0f} s") from None
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, ProtocolFault) as error:
        tls_fault = _tls_fault(error)
        if tls_fault is not None:
            raise _tls_refusal(address, options, tls_fault) from error
        raise ConnectionLost(_said(error)) from error
    finally:
        if stream is not None:
            await trio.aclose_forcefully(stream)


async def _secured(
    stream: trio.abc.Stream, address: ServerAddress, options: NatsOptions, parser: Parser, info: Info
) -> trio.abc.Stream:
    """Begin TLS, where one of the two sides wants it."""
    files = (options.ca_file, options.certificate_file, options.key_file)
    wanted = address.tls or any(files)
    if not wanted and not info.tls_required:
        return stream
    if not info.tls_required and not info.tls_available:
        remedy = "Give it a tls block in nats-server.conf, or name it nats:// without a ca_file."
        raise StreamRefused(f"{address} has no TLS.", key="quorum.servers", remedy=remedy)
    if not parser.is_empty:
        raise ConnectionLost("something came between its INFO and TLS")
    secured = trio.SSLStream(stream, _context(options), server_hostname=address.host)
    await secured.do_handshake()
    return secured


def _context(options: NatsOptions) -> ssl.SSLContext:
    """Read the files of TLS."""
    key, files = "quorum.ca_file", options.ca_file
    try:
        context = ssl.create_default_context(cafile=options.ca_file or None)
        if options.certificate_file:
            key, files = "quorum.certificate_file", f"{options.certificate_file} and {options.key_file}"
            context.load_cert_chain(options.certificate_file, options.key_file or None)
    except (OSError, ssl.SSLError) as error:
        raise StreamRefused(f"{files} cannot be used: {error.strerror or error}.", key=key) from error
    return context


def _introduction(address: ServerAddress, options: NatsOptions, info: Info, name: str) -> Mapping[str, Any]:
    """Give the fields of CONNECT. They may hold secrets."""
    fields: dict[str, Any] = {
        "verbose": False,
        "pedantic": False,
        "tls_required": address.tls,
        "name": name,
        "lang": "python",
        "version": "1",
        "protocol": 1,
        "headers": True,
        "no_responders": True,
        "echo": True,
    }
    if address.token:
        fields["auth_token"] = address.token
    elif address.user:
        fields |= {"user": address.user, "pass": address.password}
    if options.credentials_file:
        fields |= read_credentials(options.credentials_file).answer(info.nonce)
    return fields


def _refusal(address: ServerAddress, options: NatsOptions, text: str) -> ScoreboardError:
    """Give the error for what a server said before it let us in."""
    if not text.casefold().startswith(_AUTHORIZATION):
        return ConnectionLost(f"it said: {text}")
    key = CREDENTIALS_KEY if options.credentials_file else "quorum.servers"
    remedy = f"Check {key}, and the users in nats-server.conf."
    return StreamRefused(f"{address} does not let us in: {text}.", key=key, remedy=remedy)


def _tls_fault(error: BaseException) -> ssl.SSLError | None:
    """Give what TLS found wrong, if it was TLS: an end of the connection is nothing wrong."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__
    return None if isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError) else cause


def _tls_refusal(address: ServerAddress, options: NatsOptions, fault: ssl.SSLError) -> StreamRefused:
    if isinstance(fault, ssl.SSLCertVerificationError):
        what = f"{address} shows a certificate that is not trusted: {fault.verify_message}."
        return StreamRefused(what, key="quorum.ca_file", remedy="Name the authority that signed it in quorum.ca_file.")
    what = f"{address} and we do not agree about TLS: {fault.reason}."
    if options.certificate_file:
        return StreamRefused(what, key="quorum.certificate_file", remedy="Check it and quorum.key_file.")
    return StreamRefused(what, key="quorum.ca_file", remedy="It may want quorum.certificate_file and quorum.key_file.")


async def _next(stream: trio.abc.Stream, parser: Parser) -> protocol.Event:
    """Wait for the next event."""
    while (event := parser.next_event()) is None:
        parser.feed(await _receive(stream))
    return event


async def _receive(stream: trio.abc.Stream) -> bytes:
    data = await stream.receive_some(limits.RECEIVE_BYTES)
    if not data:
        raise ConnectionLost("it closed the connection")
    return bytes(data)


def _said(error: BaseException | None) -> str:
    """Give what there is to tell of an error of a connection: what the kernel said, if it said anything."""
    while error is not None and not (isinstance(error, OSError) and error.errno):
        inner = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__
        if inner is None:
            return str(error) or type(error).__name__
        error = inner
    if not isinstance(error, OSError):
        return "it was cut"
    # A look-up that failed has numbers of its own, below zero.
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)
