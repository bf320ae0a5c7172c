"""schemathesis against a real server, with all its checks: no 500, and no answer that is not described.

`make test` runs a slice; `make conformance` runs CONFORMANCE_EXAMPLES cases of each operation in each phase. The test
prints its seed; CONFORMANCE_SEED repeats it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from schemathesis.core.parameters import ParameterLocation

from tests.conformance import hooks
from tests.e2e import leader
from tests.seeds import first_seed

HERE = Path(__file__).parent
EXAMPLES = os.environ.get("CONFORMANCE_EXAMPLES", "5")
RUN_SECONDS_MAX = 3600
CONFIG = """
[limits]
caller_per_minute = 1000000000
user_per_minute = 1000000000

[boards]
main.points = { ACTION_COMPLETED = 10 }
cup.points = { WIN = 10 }
closed-cup.points = { WIN = 10 }
"""
OPERATIONS = 77
TESTED = re.compile(r"(\d+) generated, (\d+) passed")


async def test_the_server_does_what_its_description_says(tmp_path: Path) -> None:
    """Every operation is tested in every phase, and nothing is found."""
    seed = first_seed("CONFORMANCE_SEED")
    config = tmp_path / "scoreboard.toml"
    config.write_text(CONFIG, encoding="utf-8")
    async with leader.serving(tmp_path / "data", config=config) as node:
        command = [
            str(Path(sys.executable).with_name("schemathesis")),
            "--config-file",
            str(HERE / "schemathesis.toml"),
        ]
        command += ["run", f"http://{node.host}:{node.port}/openapi.json", "--checks", "all"]
        command += ["--max-examples", EXAMPLES, "--seed", str(seed)]
        # A board that was deleted is closed, and can still be read. A user who was erased may come back.
        command += ["--exclude-checks", "use_after_free"]
        with trio.fail_after(RUN_SECONDS_MAX):
            done = await trio.run_process(
                command,
                check=False,
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                cwd=tmp_path,
                env=leader.environment(
                    {"CONFORMANCE_TOKEN": leader.token("admin"), "PYTHONPATH": str(HERE.parents[1])}
                ),
            )
        told = done.stdout.decode()
        print(told[-20_000:])  # noqa: T201  # pytest shows it on failure
        assert done.returncode == 0
        tested = TESTED.search(told)
        assert tested is not None
        assert int(tested[1]) == int(tested[2]) >= OPERATIONS * int(EXAMPLES)
        assert f"Tested: {OPERATIONS}" in told
        assert '"level": "error"' not in node.stderr()


def case_of(method: str, mode: str = "negative", operation_id: str = "increment_batch") -> Any:
    """A case of a POST operation that names 200 and 413."""
    kind = SimpleNamespace(is_negative=mode == "negative", is_positive=mode == "positive")
    raw = {"operationId": operation_id, "responses": {"200": {}, "413": {}, "default": {}}}
    return SimpleNamespace(
        method=method,
        operation=SimpleNamespace(method="post", definition=SimpleNamespace(raw=raw)),
        meta=SimpleNamespace(components={ParameterLocation.BODY: SimpleNamespace(mode=kind)}),
    )


@pytest.mark.parametrize(
    ("method", "status", "good"),
    [
        ("POST", 200, True),
        ("POST", 413, True),
        ("POST", 400, True),
        ("POST", 404, False),
        ("POST", 500, False),
        ("PATCH", 405, True),
        ("PATCH", 200, False),
        ("PATCH", 501, False),
        ("OPTIONS", 204, True),
        ("OPTIONS", 200, False),
    ],
)
def test_a_status_that_is_not_named_is_found(method: str, status: int, good: bool) -> None:
    """`default` in the description does not make everything described."""

    def found() -> None:
        hooks.status_is_named(None, SimpleNamespace(status_code=status), case_of(method))

    if good:
        found()
    else:
        with pytest.raises(AssertionError, match=f"{status} is none of"):
            found()


def test_a_bad_batch_that_is_answered_as_a_good_one_is_found() -> None:
    """One item that says so is enough; good batches and other routes need none."""
    good = SimpleNamespace(
        status_code=200, headers={"content-type": ["application/json"]}, json=lambda: [{"status": 200}]
    )
    told = SimpleNamespace(**{**vars(good), "json": lambda: [{"status": 200}, {"status": 400}]})
    with pytest.raises(AssertionError):
        hooks.bad_items_are_told(None, good, case_of("POST"))
    hooks.bad_items_are_told(None, told, case_of("POST"))
    hooks.bad_items_are_told(None, good, case_of("POST", mode="positive"))
    hooks.bad_items_are_told(None, good, case_of("POST", operation_id="increment"))
