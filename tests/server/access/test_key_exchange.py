"""What nodes tell each other of the key of tokens: a replica verifies its leader's tokens, or says that it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.access.auth import Authenticator, AuthFault, Principal
from server.access.directory_keys import DirectoryKeys
from server.access.issuers import trusted_issuers
from server.access.key_exchange import KeyExchange, SharedKey
from server.access.minting import mint, minting_fault
from server.access.signing_key import make_signing_key, read_signing_key
from server.settings.config import Config, ConfigError, load

SECRET = "a-secret-that-is-long-enough-for-hs256"


class Node:
    """The keys of one node; of a replica by default. Makes itself anew as often as a test likes."""

    def __init__(self, directory: Path, *, leads: bool = False, auth: str = "") -> None:
        directory.mkdir(exist_ok=True)
        file = directory / "scoreboard.toml"
        file.write_text(f"data_dir = '{directory}'\n[auth]\n{auth}\n")
        self.config: Config = load(file, {}, {})
        self.issuers = trusted_issuers(self.config, leads=leads)
        self.exchange = KeyExchange(self.issuers, follows=not leads)
        self.checker = Authenticator(self.issuers)

    def token(self) -> str:
        """Mint one."""
        return mint(self.config, sub="a", scopes=["admin"], user=None, ttl_s=600)

    async def takes(self, token: str) -> bool:
        """Whether a token verifies; False: it is refused."""
        found = await self.checker.verify(token)
        assert isinstance(found, Principal) or found.kind == "invalid", found
        return isinstance(found, Principal)


async def test_a_replica_without_auth_verifies_its_leaders_tokens(tmp_path: Path) -> None:
    """From the welcome on, after a restart, as the next leader, and its own followers do too."""
    leader = Node(tmp_path / "leader", leads=True)
    replica = Node(tmp_path / "replica")
    token = leader.token()
    early = await replica.checker.verify(token)
    assert isinstance(early, AuthFault)
    assert early.response().code == "KEYS_UNAVAILABLE"
    assert "has not told its key" in (replica.exchange.fault() or "")
    assert not (tmp_path / "replica" / "signing.key").exists()
    replica.exchange.told(leader.exchange.shared())
    assert replica.exchange.fault() is None
    assert await replica.takes(token)
    further = Node(tmp_path / "further")
    further.exchange.told(replica.exchange.shared())
    assert await further.takes(token)

    again = Node(tmp_path / "replica")
    assert again.exchange.fault() is None
    assert await again.takes(token)
    promoted = Node(tmp_path / "replica", leads=True)
    assert await promoted.takes(token)
    assert promoted.exchange.shared() == leader.exchange.shared()
    assert not (tmp_path / "replica" / "signing.key").exists()


def test_a_promoted_node_says_why_it_mints_nothing(tmp_path: Path) -> None:
    """It has the public half alone. With the leader's signing.key it mints."""
    leader = Node(tmp_path / "leader", leads=True)
    replica = Node(tmp_path / "replica")
    replica.exchange.told(leader.exchange.shared())
    with pytest.raises(ConfigError, match=r"only the public half of its leader's key.*copy its signing\.key"):
        replica.token()
    (tmp_path / "replica" / "replica").write_text('{"leader": "http://leader:8080"}')
    (tmp_path / "replica" / "leader.key").rename(tmp_path / "aside")
    with pytest.raises(ConfigError, match=r"is a replica's, and the key is its leader's"):
        replica.token()
    assert not (tmp_path / "replica" / "signing.key").exists(), "a key that nobody else knows would be of no use"
    key = tmp_path / "replica" / "signing.key"
    key.write_bytes((tmp_path / "leader" / "signing.key").read_bytes())
    key.chmod(0o600)
    assert minting_fault(replica.config) is None
    assert replica.token()


async def test_another_key_of_the_leader_takes_the_place_of_the_first(tmp_path: Path) -> None:
    """The first one is withdrawn: what it has signed is worth nothing any more, remembered or not."""
    first, second = Node(tmp_path / "first", leads=True), Node(tmp_path / "second", leads=True)
    replica = Node(tmp_path / "replica")
    old, new = first.token(), second.token()
    replica.exchange.told(first.exchange.shared())
    assert await replica.takes(old)
    replica.exchange.told(first.exchange.shared())
    assert replica.checker.generation == 0
    replica.exchange.told(second.exchange.shared())
    assert replica.checker.generation == 1
    assert not await replica.takes(old)
    assert await replica.takes(new)
    assert await Node(tmp_path / "replica").takes(new)


def legacy(directory: Path, digits: str = "0123456789abcdef") -> None:
    """Give a directory a signing key as earlier versions made it."""
    directory.mkdir(exist_ok=True)
    (directory / "signing.key").write_text(digits * 4 + "\n")
    (directory / "signing.key").chmod(0o600)


async def test_signing_keys_of_earlier_versions_go_on_working(tmp_path: Path) -> None:
    """A copy on the replica verifies, as it always has. Without a copy, or with another key, the operator is told."""
    for name in ("leader", "copy"):
        legacy(tmp_path / name)
    legacy(tmp_path / "other", "fedcba9876543210")
    leader = Node(tmp_path / "leader", leads=True)
    shared = leader.exchange.shared()
    assert shared.pem is None
    assert "0123456789abcdef" not in str(shared)
    for name, words in [("copy", None), ("other", "copy that file"), ("none", "copy that file")]:
        replica = Node(tmp_path / name)
        replica.exchange.told(shared)
        fault = replica.exchange.fault()
        assert (fault is None) if words is None else (words in (fault or ""))
    assert await Node(tmp_path / "copy").takes(leader.token())
    mixed = Node(tmp_path / "other")
    own = mixed.token()
    pair = Node(tmp_path / "pair", leads=True)
    mixed.exchange.told(pair.exchange.shared())
    assert await mixed.takes(pair.token())
    assert await mixed.takes(own), "its own key is not forgotten"


@pytest.mark.parametrize(
    ("leads", "follows", "words"),
    [
        (f"jwt_secret = '{SECRET}'", "", "give this node the same [auth]"),
        (f"jwt_secret = '{SECRET}'", f"jwt_secret = '{SECRET}'", None),
        ("", f"jwt_secret = '{SECRET}'", "keys in this node's [auth] are others"),
        ("", "algorithms = ['HS256']", "leaves out EdDSA"),
        ("algorithms = ['HS256']", "", "is a secret that is not here"),
    ],
)
def test_a_replica_that_cannot_verify_its_leaders_tokens_says_so(
    tmp_path: Path, leads: str, follows: str, words: str | None
) -> None:
    """Whatever the two are configured with."""
    leader, replica = Node(tmp_path / "leader", leads=True, auth=leads), Node(tmp_path / "replica", auth=follows)
    replica.exchange.told(leader.exchange.shared())
    fault = replica.exchange.fault()
    assert (fault is None) if words is None else (words in (fault or ""))


def test_a_replica_with_the_leaders_public_key_in_its_auth_is_silent(tmp_path: Path) -> None:
    """The other way to give it the key."""
    leader = Node(tmp_path / "leader", leads=True)
    pem = tmp_path / "leader.pem"
    pem.write_text(leader.exchange.shared().pem or "")
    replica = Node(tmp_path / "replica", auth=f"jwt_public_key_file = '{pem}'\nalgorithms = ['EdDSA']")
    replica.exchange.told(leader.exchange.shared())
    assert replica.exchange.fault() is None


def test_what_an_earlier_version_or_nonsense_tells_changes_nothing(tmp_path: Path) -> None:
    """A leader that tells nothing: only a node with some key may hope. A PEM that is no key is not adopted."""
    replica = Node(tmp_path / "replica")
    replica.exchange.told(SharedKey())
    assert "tells no key" in (replica.exchange.fault() or "")
    replica.exchange.told(SharedKey("-----BEGIN PUBLIC KEY-----\nx\n", "0" * 16))
    assert replica.exchange.fault() is not None
    assert not (tmp_path / "replica" / "leader.key").exists()
    assert make_signing_key(str(tmp_path / "replica"))
    known = Node(tmp_path / "replica")
    known.exchange.told(SharedKey())
    assert known.exchange.fault() is None
    assert KeyExchange().shared() == SharedKey()


def test_a_damaged_leader_key_stops_the_start(tmp_path: Path) -> None:
    """With what can be done; the leader tells it again."""
    Node(tmp_path / "replica")
    (tmp_path / "replica" / "leader.key").write_text("hello")
    with pytest.raises(ConfigError, match=r"leader\.key.*remove it"):
        Node(tmp_path / "replica")


def test_a_directory_keys_id_is_that_of_its_signing_key(tmp_path: Path) -> None:
    """So a node and a copy of its key agree."""
    keys = DirectoryKeys(Node(tmp_path / "leader", leads=True).config)
    assert keys.key_ids == (read_signing_key(str(tmp_path / "leader")).key_id,)
