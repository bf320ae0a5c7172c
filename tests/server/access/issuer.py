"""An issuer of tokens with a JWKS endpoint on 127.0.0.1, or as a function of the time; its keys and its tokens."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import jwt
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from server.access.auth import Authenticator
from server.access.issuers import TrustedIssuer
from server.access.jwks import JwksKeys
from server.access.keys import VerificationKey
from server.settings.config import AuthConfig

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

RSA_KEYS = [rsa.generate_private_key(65537, 2048) for _ in range(2)]
ELLIPTIC = ec.generate_private_key(ec.SECP256R1())
NOW_S = 1_000_000.0


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Issuer:
    """A JWKS endpoint that answers what the test says, and counts."""

    def __init__(self) -> None:
        self.fetches = 0
        self.keys: list[dict[str, Any]] = []
        self.answer: Callable[[], bytes] = self.key_set
        self.may_answer = trio.Event()
        self.may_answer.set()
        self.url = ""
        self.heads: list[str] = []

    def key_set(self) -> bytes:
        return http(json.dumps({"keys": self.keys}).encode())

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                part = await stream.receive_some(4096)
                if not part:
                    return
                head += part
            self.heads.append(head.decode())
            self.fetches += 1
            await self.may_answer.wait()
            try:
                await stream.send_all(self.answer())
            except trio.BrokenResourceError:
                return  # the client has heard enough


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A whole HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def jwk(key: PrivateKey, key_id: str | None, **more: Any) -> dict[str, Any]:
    """The public JWK of a key."""
    algorithm = {rsa.RSAPrivateKey: "RS256", ec.EllipticCurvePrivateKey: "ES256"}
    name = next((name for kind, name in algorithm.items() if isinstance(key, kind)), "EdDSA")
    public = jwt.get_algorithm_by_name(name).to_jwk(key.public_key(), as_dict=True)
    return {**public, **({} if key_id is None else {"kid": key_id}), **more}


def token(key: PrivateKey, key_id: str | None, algorithm: str = "RS256", lifetime_s: int = 600) -> str:
    """A good token that this key has signed."""
    claims = {"sub": "game", "aud": "scoreboard", "exp": int(NOW_S) + lifetime_s}
    return jwt.encode(claims, key, algorithm, headers={} if key_id is None else {"kid": key_id})


async def find(keys: JwksKeys, key_id: str) -> VerificationKey | None:
    """Look for the key of this id as a token makes one do; None: a good fetch does not have it."""
    found = keys.candidates(key_id, "RS256")
    if not found.named:
        await keys.renew()
        found = keys.candidates(key_id, "RS256")
    return found.keys[0] if found.named else None


@asynccontextmanager
async def running(issuer: Issuer, clock: Clock) -> AsyncIterator[tuple[JwksKeys, Authenticator]]:
    """An issuer that serves, and keys and an authenticator that use it."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, issuer.serve, 0, host="127.0.0.1"))
        issuer.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/keys"
        keys = JwksKeys(issuer.url, ("RS256",), clock_s=clock)
        await nursery.start(keys.run)
        auth = AuthConfig(jwks_url=issuer.url, algorithms=("RS256",))
        yield keys, Authenticator([TrustedIssuer(auth, keys)], clock_s=lambda: NOW_S)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def scripted(answer: Callable[[float], httpx.Response]) -> AsyncIterator[tuple[JwksKeys, list[float]]]:
    """Keys whose issuer is a function of the time; and when it was asked. Time is trio's own, and jumps."""
    asked_s: list[float] = []
    began_s = trio.current_time()

    async def handle(request: httpx.Request) -> httpx.Response:
        asked_s.append(trio.current_time() - began_s)
        return answer(asked_s[-1])

    def open_client() -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(handle))

    keys = JwksKeys("https://issuer.example/", ("RS256",), clock_s=trio.current_time, open_client=open_client)
    async with trio.open_nursery() as nursery:
        await nursery.start(keys.run)
        yield keys, asked_s
        nursery.cancel_scope.cancel()


def unreachable(_: float) -> httpx.Response:
    """Nobody is there."""
    raise httpx.ConnectError("refused")


def reachable(*entries: dict[str, Any]) -> httpx.Response:
    """A good answer."""
    return httpx.Response(200, stream=httpx.ByteStream(json.dumps({"keys": entries}).encode()))
