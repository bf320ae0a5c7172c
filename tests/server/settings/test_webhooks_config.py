"""The configuration of `[[webhooks]]`: names, secrets from files and the environment, and what is refused."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from server.cli.config import warnings_of
from server.settings.config import gather, load
from server.settings.effective import MASK, effective
from server.settings.values import ConfigError
from server.settings.webhooks import EVENTS, WEBHOOKS_MAX


def secret(count: int = 24, byte: bytes = b"k") -> str:
    """A good secret of so many bytes."""
    return "whsec_" + base64.b64encode(byte * count).decode()


GOOD = secret()
OTHER = secret(64, b"o")


def hook(text: str = "", *, url: str = "https://shop.example/hooks", events: str = '["user.erased"]') -> str:
    return f'[[webhooks]]\nurl = "{url}"\nevents = {events}\n{text}\n'


def write(directory: Path, text: str) -> Path:
    path = directory / "scoreboard.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(directory: Path, text: str, environ: dict[str, str] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(write(directory, text), environ or {}, {})
    assert "kkkk" not in str(caught.value)
    assert base64.b64encode(b"k" * 24).decode() not in str(caught.value)
    return caught.value


def test_a_hook_has_all_that_is_said_and_defaults_for_the_rest(tmp_path: Path) -> None:
    """Several secrets rotate; a hook without a name has one of its host, which does not depend on its place."""
    text = hook(f'secret = "{GOOD}"') + hook(
        f'name = "chat"\nsecret = ["{GOOD}", "{OTHER}"]\nboards = ["main", "cup"]\nallow_private = true\n'
        f'interval_ms = 1000\ndisable_after = "12h"',
        events=str(list(EVENTS)).replace("'", '"'),
    )
    plain, chat = load(write(tmp_path, text), {}, {}).webhooks
    assert plain.name.startswith("shop.example-")
    assert (plain.secret, plain.boards, plain.allow_private, plain.interval_ms) == ((GOOD,), (), False, None)
    assert (plain.disable_after_s, chat.disable_after_s) == (3 * 86_400, 12 * 3_600)
    assert (chat.secret, chat.events, chat.interval_ms, chat.allow_private) == ((GOOD, OTHER), EVENTS, 1000, True)
    assert plain.concerns("anything")
    assert chat.concerns("cup")
    assert not chat.concerns("other")
    assert GOOD not in repr(chat)
    assert GOOD not in repr(load(write(tmp_path, text), {}, {}))
    swapped = "".join(f"[[webhooks]]{part}" for part in reversed(text.split("[[webhooks]]")[1:]))
    assert [each.name for each in load(write(tmp_path, swapped), {}, {}).webhooks] == ["chat", plain.name]


def test_secrets_come_from_a_file_or_from_the_environment(tmp_path: Path) -> None:
    """One on each line of a file. The variable of a hook goes before what the file says."""
    keys = tmp_path / "keys"
    keys.write_text(f"{GOOD}\n{OTHER}\n", encoding="utf-8")
    text = hook(f'name = "my-shop"\nsecret_file = "{keys}"')
    assert load(write(tmp_path, text), {}, {}).webhooks[0].secret == (GOOD, OTHER)
    environ = {"SCOREBOARD_WEBHOOKS_MY_SHOP_SECRET": OTHER}
    assert load(write(tmp_path, text), environ, {}).webhooks[0].secret == (OTHER,)
    bare = hook('name = "my-shop"')
    assert load(write(tmp_path, bare), {"SCOREBOARD_WEBHOOKS_MY_SHOP_SECRET": f"{GOOD},{OTHER}"}, {}).webhooks[
        0
    ].secret == (GOOD, OTHER)
    stray = refused(tmp_path, bare, {"SCOREBOARD_WEBHOOKS_MY_SHOPS_SECRET": GOOD})
    assert stray.key == "SCOREBOARD_WEBHOOKS_MY_SHOPS_SECRET" or "webhooks[0].secret" in stray.key


def test_what_is_effective_shows_no_secret(tmp_path: Path) -> None:
    """The table as a whole is masked."""
    path = write(tmp_path, hook(f'secret = "{GOOD}"'))
    shown = {each.key: each for each in effective(load(path, {}, {}), gather(path, {}, {}))}
    assert (shown["webhooks"].value, shown["webhooks"].origin) == (MASK, str(path))


def test_a_file_of_secrets_that_others_can_read_is_told(tmp_path: Path) -> None:
    """`config check` warns of it as of the other files with secrets."""
    keys = tmp_path / "keys"
    keys.write_text(GOOD, encoding="utf-8")
    path = write(tmp_path, hook(f'secret_file = "{keys}"'))
    for mode, told in ((0o644, True), (0o600, False)):
        keys.chmod(mode)
        warnings = list(warnings_of(load(path, {}, {}), []))
        assert any(each.startswith(f"webhooks[0].secret_file: {keys}: others can read") for each in warnings) is told


@pytest.mark.parametrize(
    ("text", "key", "sentence"),
    [
        (hook(), "webhooks[0].secret", "is missing"),
        (hook('secret = ""'), "webhooks[0].secret", "is missing"),
        (hook("secret = 'whsec_short'"), "webhooks[0].secret", "24 to 64 bytes"),
        (hook(f"secret = '{secret(23)}'"), "webhooks[0].secret", "24 to 64 bytes"),
        (hook(f"secret = '{secret(65)}'"), "webhooks[0].secret", "24 to 64 bytes"),
        (hook(f"secret = '{GOOD.removeprefix('whsec_')}'"), "webhooks[0].secret", "whsec_"),
        (hook("secret = 'whsec_{}'".replace("{}", "!" * 40)), "webhooks[0].secret", "base64"),
        (hook(f"secret = ['{GOOD}', 'whsec_x']"), "webhooks[0].secret", "each secret"),
        (hook("secret_file = '/nowhere/at/all'"), "webhooks[0].secret_file", "cannot be read"),
        (hook(f"secret = '{GOOD}'\nsecret_file = 'x'"), "webhooks[0].secret", "only one"),
        (hook(f"secret = '{GOOD}'", events="[]"), "webhooks[0].events", "one or more of"),
        (hook(f"secret = '{GOOD}'", events='["top"]'), "webhooks[0].events", "top.changed"),
        (hook(f"secret = '{GOOD}'", events='["user.erased", "user.erased"]'), "webhooks[0].events", "each once"),
        (hook(f"secret = '{GOOD}'", events='"user.erased"'), "webhooks[0].events", "a list of strings"),
        (f"[[webhooks]]\nurl = 'https://a.example/'\nsecret = '{GOOD}'", "webhooks[0].events", "is missing"),
        (f"[[webhooks]]\nevents = ['user.erased']\nsecret = '{GOOD}'", "webhooks[0].url", "is missing"),
        (hook(f"secret = '{GOOD}'", url="ftp://a.example/"), "webhooks[0].url", "https://"),
        (hook(f"secret = '{GOOD}'", url="a.example"), "webhooks[0].url", "https://"),
        (hook(f"secret = '{GOOD}'", url="https://u:p@a.example/"), "webhooks[0].url", "without a user"),
        (hook(f"secret = '{GOOD}'", url="https://a.example/#x"), "webhooks[0].url", "fragment"),
        (hook(f"secret = '{GOOD}'", url="https://a.example:99999/"), "webhooks[0].url", "https://"),
        (hook(f"secret = '{GOOD}'", url="https://a.example/ä"), "webhooks[0].url", "ASCII"),
        (hook(f"secret = '{GOOD}'\nname = 'a/b'"), "webhooks[0].name", "at most 64"),
        (hook(f"secret = '{GOOD}'\nname = '..'"), "webhooks[0].name", "begin with"),
        (hook(f"secret = '{GOOD}'\nnames = 'a'"), "webhooks[0].names", "no such key"),
        (hook(f"secret = '{GOOD}'\nallow_private = 'yes'"), "webhooks[0].allow_private", "true or false"),
        (hook(f"secret = '{GOOD}'\nboards = ['']"), "webhooks[0].boards", "must not be empty"),
        (hook(f"secret = '{GOOD}'\ninterval_ms = 9"), "webhooks[0].interval_ms", "from 10"),
        (hook(f"secret = '{GOOD}'\ndisable_after = 'soon'"), "webhooks[0].disable_after", "such as"),
        (hook(f"secret = '{GOOD}'") * 2, "webhooks[1].name", "must differ"),
        (hook(f"secret = '{GOOD}'\nname = 'n'") * (WEBHOOKS_MAX + 1), "webhooks", "at most"),
        ("webhooks = 5", "webhooks", "a list of tables"),
        ("[webhooks]\nurl = 'https://a.example/'", "webhooks", ""),
    ],
)
def test_a_bad_hook_is_refused_by_name(text: str, key: str, sentence: str, tmp_path: Path) -> None:
    """The full key, and what is allowed. No refusal shows a secret."""
    fault = refused(tmp_path, text)
    assert fault.key.startswith(key)
    assert sentence in fault.message


@pytest.mark.parametrize(
    "url", ["https://u:hush@a.example/", "ftp://hush@a.example", "https://u:hush/y@a.example:x/", "u:hush@a"]
)
def test_a_refused_url_shows_no_password(url: str, tmp_path: Path) -> None:
    """The rest of it is shown, so that one finds the mistake."""
    fault = refused(tmp_path, hook(f"secret = '{GOOD}'", url=url))
    assert "hush" not in fault.message
    assert "***@a" in fault.message
