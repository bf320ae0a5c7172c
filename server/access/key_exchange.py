"""What nodes tell each other of the key that tokens are signed with, so that a replica verifies its leader's tokens.

    leader, relay      welcome.token_key, token_key_id = exchange.shared()
    follower           exchange.told(SharedKey(welcome.token_key, welcome.token_key_id));  exchange.fault()

    the leader's key         it tells                  a replica without keys in [auth]    a replica with keys in [auth]
    -----------------------  ------------------------  ----------------------------------  -----------------------------
    an Ed25519 signing.key   its public half, its id   adopts it                           told unless it is one of them
    a secret signing.key     its id                    told unless it has a copy           told unless it is one of them
    named in [auth]          an empty id               told: it needs the same [auth]      -
    of an earlier version    nothing                   told unless it has a signing.key    -

`told` means that the operator hears of it: a warning in the log, and in the answer of `/readyz`. Such a replica serves
public reads, so it is ready. But promoted, it would refuse every token that is in use.

Rules:
- A relay passes on what it was told, so what a follower hears is always the leader's.
- A secret never leaves a node. The id is a MAC by the key itself, and tells nothing of it.
- The link is the operator's word for who leads: a key is taken from it as the log is.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from server.access.directory_keys import DirectoryKeys
from server.access.issuers import TrustedIssuer
from server.access.keys import FixedKeys
from server.access.signing_key import key_id_of

log = structlog.get_logger()


class SharedKey(msgspec.Struct, frozen=True):
    """What a leader tells of its key. `pem`: the public half. `key_id`: "" for keys that `[auth]` names."""

    pem: str | None = None
    key_id: str | None = None


class KeyExchange:
    """The key exchange of one node. Without issuers nothing is told, and nothing is missed."""

    def __init__(self, issuers: Sequence[TrustedIssuer] = (), *, follows: bool = False) -> None:
        """`follows`: the node is a replica, which has not been told anything yet."""
        sources = [each.keys for each in issuers]
        self._own = next((keys for keys in sources if isinstance(keys, DirectoryKeys)), None)
        self._fixed = [keys for keys in sources if isinstance(keys, FixedKeys)]
        self._empty = not issuers
        self._told: SharedKey | None = None
        self._fault: str | None = None
        if follows and self._own is not None and not self._own.key_ids:
            self._note("the leader has not told its key yet, so no token can be verified")

    def shared(self) -> SharedKey:
        """Give what followers are told."""
        if self._told is not None:
            return self._told
        if self._own is None:
            return SharedKey(None, None if self._empty else "")
        ids = self._own.key_ids
        return SharedKey(self._own.public_pem or None, ids[0] if ids else None)

    def told(self, key: SharedKey) -> None:
        """Take what the leader told. Does not raise."""
        if self._empty:
            return
        self._told = key
        if key.pem is not None and self._own is not None:
            self._own.adopt(key.pem)
        self._note(self._fault_of(key))

    def fault(self) -> str | None:
        """Say why tokens of the leader do not verify here; None: they do, as far as is known."""
        return self._fault

    def _fault_of(self, key: SharedKey) -> str | None:
        if self._own is None:
            if not key.key_id or key.key_id in self._fixed_ids():
                return None
            return "the leader signs with its own signing.key, and the keys in this node's [auth] are others"
        if key.pem is not None and not self._own.uses_leader_key:
            return "the leader's key is no Ed25519 key, or auth.algorithms of this node leaves out EdDSA"
        if key.key_id:
            if key.key_id in self._own.key_ids:
                return None
            return "the leader's signing.key is a secret that is not here: copy that file into this node's directory"
        if key.key_id == "":
            return "the leader's keys are in its [auth]: give this node the same [auth]"
        return (
            None if self._own.key_ids else "the leader tells no key: copy its signing.key, or give both the same [auth]"
        )

    def _fixed_ids(self) -> set[str]:
        return {
            key_id_of(key) for source in self._fixed for key in source.keys if isinstance(key, bytes | Ed25519PublicKey)
        }

    def _note(self, fault: str | None) -> None:
        if fault is not None and fault != self._fault:
            log.warning("leader_tokens_not_verified", reason=fault)
        if fault is None and self._fault is not None:
            log.info("leader_tokens_verified")
        self._fault = fault
