"""What a running process takes over of a changed configuration, what it names, and that the document says the same."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from server.settings.config import TYPES, Config, load
from server.settings.environment import dotted
from server.settings.reload import RELOADED, Changes, compare

DOCUMENT = Path(__file__).parents[3] / "server" / "CONFIGURATION.md"
SECRET, OTHER = "s" * 40, "t" * 40
ISSUER = '[[auth.issuers]]\nissuer = "https://login.example/"\n'


def read(tmp_path: Path, text: str) -> Config:
    """Read a file."""
    path = tmp_path / "scoreboard.toml"
    path.write_text(text, encoding="utf-8")
    return load(path, {}, {})


def changes(tmp_path: Path, before: str, after: str) -> Changes:
    """Compare two files, as one is read after the other."""
    return compare(read(tmp_path, before), read(tmp_path, after))


def test_the_document_lists_the_keys() -> None:
    """Each in a code span of its own, up to the sentence about all others; each is a key."""
    section = DOCUMENT.read_text(encoding="utf-8").partition("## Without a restart")[2]
    listed = re.findall(r"`([a-z_]+\.[a-z_]+)`", section.partition("All other keys")[0])
    assert sorted(listed) == sorted(map(dotted, RELOADED))
    assert set(TYPES) >= RELOADED


def test_nothing_changed(tmp_path: Path) -> None:
    """The same text in another order."""
    one = '[limits]\nuser_per_minute = 7\n[logging]\nlevel = "debug"\n'
    other = '[logging]\nlevel = "debug"\n[limits]\nuser_per_minute = 7\n'
    found = changes(tmp_path, one, other)
    assert (found.changed, found.needs_restart) == ([], [])


def test_each_key_is_in_one_of_the_lists(tmp_path: Path) -> None:
    """What is taken over counts, what is not stays as it was; a board is one name."""
    after = """
        bind = "127.0.0.1:9999"
        [auth]
        public_reads = false
        [boards.main]
        points = { WIN = 1 }
        [boards.cup]
        points = { WIN = 1 }
        [limits]
        user_per_minute = 7
        [live]
        interval_ms = 100
        max_viewers = 5
        [privacy]
        names = "hidden"
        [logging]
        level = "debug"
    """
    before = Config()
    found = compare(before, read(tmp_path, after))
    assert found.changed == ["limits.user_per_minute", "live.interval_ms", "live.max_viewers", "logging.level"]
    assert found.needs_restart == ["bind", "auth.public_reads", "boards.main", "boards.cup", "privacy.names"]
    config = found.config
    assert (config.limits.user_per_minute, config.live.interval_ms, config.live.max_viewers) == (7, 100, 5)
    assert (config.limits.caller_per_minute, config.logging.level) == (60_000, "debug")
    assert (config.bind, config.auth, config.boards) == (before.bind, before.auth, before.boards)
    again = compare(config, read(tmp_path, after))
    assert (again.changed, again.needs_restart) == ([], found.needs_restart)


def test_every_key_of_the_configuration_has_a_place(tmp_path: Path) -> None:
    """Whatever section is added later: what is not listed needs a restart. No key is passed over."""
    before = read(tmp_path, f'[auth]\njwt_secret = "{SECRET}"\n')
    for key in TYPES.keys() - {key for key in RELOADED if key[0] == "auth"}:  # those have rules: see below
        part = getattr(before, key[0])
        value: object = object() if len(key) == 1 else msgspec.structs.replace(part, **{key[1]: object()})
        if key[0] == "auth" and key[1] == "issuers":
            value = msgspec.structs.replace(part, issuers=(before.auth,))
        if key[1:] == ("allowed_origins",):
            value = msgspec.structs.replace(part, allowed_origins=("null",))
        after = msgspec.structs.replace(before, **{key[0]: value})
        found = compare(before, after)
        listed = found.changed if key in RELOADED else found.needs_restart
        assert dotted(key) in listed, key


@pytest.mark.parametrize(
    ("before", "after", "changed", "needs_restart"),
    [
        (f'jwt_secret = "{SECRET}"', f'jwt_secret = ["{OTHER}", "{SECRET}"]', ["auth.jwt_secret"], []),
        (f'jwt_secret = "{SECRET}"', "", [], ["auth.jwt_secret"]),
        ("", f'jwt_secret = "{SECRET}"', [], ["auth.jwt_secret"]),
        (
            f'jwt_secret = "{SECRET}"',
            f'jwt_secret = "{OTHER}"\naudience = "game"',
            [],
            ["auth.jwt_secret", "auth.audience"],
        ),
        (f'{ISSUER}jwt_secret = "{SECRET}"', f'{ISSUER}jwt_secret = "{OTHER}"', ["auth.issuers[0].jwt_secret"], []),
        (f'{ISSUER}jwt_secret = "{SECRET}"', f'{ISSUER}jwt_secret = "{OTHER}"\nuser_claim = "u"', [], ["auth.issuers"]),
        (f'{ISSUER}jwt_secret = "{SECRET}"', "", [], ["auth.issuers"]),
    ],
)
def test_keys_change_while_everything_else_of_issuers_stays(
    before: str, after: str, changed: list[str], needs_restart: list[str], tmp_path: Path
) -> None:
    """Another source of keys, or other rules, are built into what runs."""
    found = changes(tmp_path, f"[auth]\n{before}\n", f"[auth]\n{after}\n")
    assert (found.changed, found.needs_restart) == (changed, needs_restart)
    assert SECRET not in str(found)
    assert OTHER not in str(found)


def test_a_secret_file_with_other_content_is_a_change(tmp_path: Path) -> None:
    """Its name may stay. A secret moves from the file of the configuration into a file of its own, too."""
    secrets = tmp_path / "secret"
    secrets.write_text(SECRET + "\n", encoding="utf-8")
    text = f'[auth]\njwt_secret_file = "{secrets}"\n'
    before = read(tmp_path, text)
    secrets.write_text(f"{OTHER}\n{SECRET}\n", encoding="utf-8")
    after = read(tmp_path, text)
    assert compare(before, after).changed == ["auth.jwt_secret"]
    moved = compare(after, read(tmp_path, f'[auth]\njwt_secret = ["{OTHER}", "{SECRET}"]\n'))
    assert (moved.changed, moved.needs_restart) == (["auth.jwt_secret_file"], [])
