"""What deploy/UPGRADE.md promises: any version can follow the first one, and the way back says what it costs.

`golden/first-version` is a directory of the first version of this program. Its leader took four actions in two lives,
and was killed in the second. Written anew by a later version it would be worth nothing.
"""

from __future__ import annotations

import json
import lzma
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import google_crc32c
import httpx
import jwt
import pytest
from click.testing import CliRunner, Result

from engine.record import HEADER_BYTES, pack_frame
from server.cli.main import main
from server.cli.support import CommandRefused
from tests.deploy.conftest import COMMAND, free_port, running
from tests.deploy.files import DEPLOY
from tests.e2e import leader
from tests.engine.logs import frames_in, increments, overwrite

GOLDEN = Path(__file__).with_name("golden") / "first-version"
KEY = (GOLDEN / "signing.key").read_bytes().removesuffix(b"\n")
ACTIONS = {"order-1": "ann", "order-2": "bob", "order-3": "ann", "order-4": "bob", "order-5": "cy"}
ROWS = [("ann", "Ann", 20), ("bob", None, 20), ("cy", None, 10)]
LAST_SEQ = 6
UNKNOWN_TYPE = 127


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The directory as its leader left it."""
    copy = tmp_path / "data"
    shutil.copytree(GOLDEN, copy)
    (packed,) = (copy / "log").iterdir()
    packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
    packed.unlink()
    (copy / "signing.key").chmod(0o600)
    return copy


def bearer(*scopes: str) -> dict[str, str]:
    """A token as the first version made it."""
    now = int(time.time())
    claims = {"sub": "shop", "aud": "scoreboard", "iat": now, "exp": now + 3600, "scope": " ".join(scopes)}
    return {"Authorization": f"Bearer {jwt.encode(claims, KEY, algorithm='HS256')}"}


def scoreboard(*arguments: str | Path) -> Result:
    """Run a verb that ends by itself, in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def count(client: httpx.Client, user_id: str, action_id: str) -> Any:
    """Count one action, with the old token."""
    body = {"userId": user_id, "actionId": action_id}
    answer = client.post("/scores/increment", json=body, headers=bearer("scores:write"))
    assert answer.status_code == 200, answer.text
    return answer.json()


def rows(client: httpx.Client, **position: int) -> list[tuple[str, str | None, int]]:
    """What the top says of each user."""
    top = client.get("/scoreboard/top", params=position).json()
    return [(row["userId"], row.get("displayName"), row["score"]) for row in top["entries"]]


def test_a_directory_of_the_first_version_goes_on(data: Path, tmp_path: Path) -> None:
    """Scores, names, receipts and tokens are there. It counts on, is killed, and a new replica gets everything."""
    port = free_port()
    serve = ["serve", "--data-dir", str(data), "--bind", f"127.0.0.1:{port}"]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=leader.ALARM_SECONDS, trust_env=False) as client:
        with running(serve, tmp_path, {}) as process:
            assert rows(client) == ROWS
            for action_id, user_id in ACTIONS.items():
                assert count(client, user_id, action_id)["applied"] is False
            assert count(client, "cy", "order-6")["newScore"] == 20
            process.kill()
            process.wait()
        with running(serve, tmp_path, {}):
            last = count(client, "cy", "order-7")
            assert last["newScore"] == 30
            follow(port, tmp_path, last["seq"], rows(client))
    verified = scoreboard("log", "verify", "--data-dir", data)
    assert verified.exit_code == 0, verified.output


def follow(leader_port: int, tmp_path: Path, seq: int, wanted: list[tuple[str, str | None, int]]) -> None:
    """Start a replica with a token of the first version, and see that it has what the leader has."""
    token_path = tmp_path / "replica.token"
    token_path.write_text(bearer("log:read")["Authorization"].removeprefix("Bearer "))
    token_path.chmod(0o600)
    port = free_port()
    arguments = ["replica", "--leader", f"http://127.0.0.1:{leader_port}", "--token-file", str(token_path)]
    directory = tmp_path / "replica"
    directory.mkdir()
    with running([*arguments, "--bind", f"127.0.0.1:{port}"], directory, {}):
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=leader.ALARM_SECONDS, trust_env=False) as client:
            assert rows(client, minSeq=seq, minEpoch=1) == wanted


def write_what_is_not_known(log: Path) -> None:
    """Append a frame as a version of the future would, with a type of event that this one does not know."""
    (segment,) = log.iterdir()
    _, end, frame = frames_in(segment)[-1]
    packed = bytearray(pack_frame(increments(LAST_SEQ + 1, 1), epoch=1, previous=frame.checksum))
    packed[HEADER_BYTES + 1] = UNKNOWN_TYPE
    packed[4:8] = int(google_crc32c.value(bytes(packed[8:]))).to_bytes(4, "little")
    overwrite(segment, end, bytes(packed))


def test_the_way_back_names_what_it_leaves_behind(data: Path, tmp_path: Path) -> None:
    """A version that meets what a later one wrote refuses it, and its own restore gives everything before that."""
    write_what_is_not_known(data / "log")
    serve = [*COMMAND, "serve", "--data-dir", str(data), "--bind", "127.0.0.1:0"]
    refused = subprocess.run(serve, env=leader.environment(), capture_output=True, text=True, check=False)
    assert refused.returncode == CommandRefused.exit_code
    said = re.fullmatch(
        r"Error: this was written by a newer version of scoreboard: .*, seq (\d+)\)\. .*\n",
        refused.stderr.splitlines(True)[-1],
    )
    assert said is not None, refused.stderr
    assert int(said[1]) == LAST_SEQ + 1
    page = (DEPLOY / "UPGRADE.md").read_text()
    assert f"seq {LAST_SEQ + 1}). Start it with that version" in page
    steps = re.search(r"^mv data data\.new\nscoreboard (restore .*?) +#", page, re.MULTILINE)
    assert steps is not None
    data.rename(tmp_path / "data.new")
    paths = {"data": str(data), "data.new": str(tmp_path / "data.new")}
    restored = scoreboard(*(paths.get(word, word) for word in steps[1].split()))
    assert restored.exit_code == 0, restored.output
    port = free_port()
    with running(["serve", "--data-dir", str(data), "--bind", f"127.0.0.1:{port}"], tmp_path, {}):
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=leader.ALARM_SECONDS, trust_env=False) as client:
            assert rows(client) == ROWS
            assert count(client, "ann", "order-1")["applied"] is False
            assert count(client, "ann", "after-the-way-back")["newScore"] == 30


def test_what_is_left_behind_is_listed_for_the_backends(data: Path) -> None:
    """The page's `log dump` gives the actions after a seq, each with what a backend needs to send it again."""
    dumped = scoreboard("log", "dump", "--data-dir", data, "--from-seq", str(LAST_SEQ - 1))
    assert dumped.exit_code == 0, dumped.output
    events = [json.loads(line) for line in dumped.stdout.splitlines()]
    assert [(event["seq"], event["userId"], event["actionId"]) for event in events] == [
        (LAST_SEQ - 1, "bob", "order-4"),
        (LAST_SEQ, "cy", "order-5"),
    ]
    assert f"log dump --data-dir data --from-seq {LAST_SEQ + 1}" in (DEPLOY / "UPGRADE.md").read_text()
