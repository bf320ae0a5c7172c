"""An issuer with one RSA key: a JWKS endpoint on 127.0.0.1 that counts what it is asked, and the tokens it signs."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


class Issuer:
    """Serves from `start` to `stop`; `paths` are the requested paths."""

    KEY_ID = "key-1"

    def __init__(self) -> None:
        self.paths: list[str] = []
        self._key = self.make_key()
        public = self._key.public_key()
        self.public_pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.public_der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.modulus = public.public_numbers().n.to_bytes(256, "big")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @staticmethod
    def make_key() -> rsa.RSAPrivateKey:
        """A new key."""
        return rsa.generate_private_key(65537, 2048)

    @staticmethod
    def jwk_of(key: rsa.RSAPrivateKey, key_id: str) -> dict[str, Any]:
        """The public half of a key as a JWK."""
        public = jwt.get_algorithm_by_name("RS256").to_jwk(key.public_key(), as_dict=True)
        return {**public, "kid": key_id, "alg": "RS256", "use": "sig"}

    def document(self) -> bytes:
        """The key set."""
        return json.dumps({"keys": [self.jwk_of(self._key, self.KEY_ID)]}).encode()

    def sign(self, claims: bytes, header: dict[str, Any] | None = None, key: rsa.RSAPrivateKey | None = None) -> str:
        """A token of this issuer, or one that another key signed."""
        return jwt.encode(json.loads(claims), key or self._key, "RS256", headers=header or {"kid": self.KEY_ID})

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # the name that the library calls
                issuer.paths.append(self.path)
                document = issuer.document()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(document)))
                self.end_headers()
                self.wfile.write(document)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the library's name
                """Log nothing: the test asserts what matters."""

        return Handler
