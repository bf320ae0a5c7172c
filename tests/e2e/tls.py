"""A certificate authority of our own, and a proxy that ends TLS in front of a node, as an operator's proxy does."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PIECE_BYTES = 2**14


def certificates(directory: Path) -> tuple[Path, ssl.SSLContext]:
    """Make an authority and its certificate for 127.0.0.1; give the file to trust, and the server's context."""
    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("test authority", "test node")]
    made = []
    for number, more in enumerate(
        (
            x509.BasicConstraints(ca=True, path_length=None),
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
        )
    ):
        builder = x509.CertificateBuilder(
            issuer_name=names[0],
            subject_name=names[number],
            public_key=keys[number].public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - datetime.timedelta(days=1),
            not_valid_after=now + datetime.timedelta(days=1),
        )
        made.append(builder.add_extension(more, critical=number == 0).sign(keys[0], hashes.SHA256()))
    trusted, presented = directory / "authority.pem", directory / "node.pem"
    trusted.write_bytes(made[0].public_bytes(serialization.Encoding.PEM))
    key = keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    presented.write_bytes(key + made[1].public_bytes(serialization.Encoding.PEM))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(presented)
    return trusted, context


@asynccontextmanager
async def ending_tls(context: ssl.SSLContext, port: int) -> AsyncIterator[str]:
    """Run a proxy in front of the node at `port`; gives its address, `https://…`."""
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_ssl_over_tcp, partial(_carry, port), 0, context, host="127.0.0.1")
        [listener] = await nursery.start(partial(serve, https_compatible=True))
        yield f"https://127.0.0.1:{listener.transport_listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def _carry(port: int, outside: trio.abc.Stream) -> None:
    try:
        async with await trio.open_tcp_stream("127.0.0.1", port) as inside, trio.open_nursery() as nursery:
            nursery.start_soon(_pass_on, outside, inside, nursery.cancel_scope)
            nursery.start_soon(_pass_on, inside, outside, nursery.cancel_scope)
    except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
        pass  # one of the two hung up, or does not trust us


async def _pass_on(source: trio.abc.Stream, sink: trio.abc.Stream, both: trio.CancelScope) -> None:
    while data := await source.receive_some(PIECE_BYTES):
        await sink.send_all(data)
    both.cancel()
