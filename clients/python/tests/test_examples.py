"""The quickstarts do what they say, with a real leader behind them."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from board_server import CLIENT, Server

from scoreboard_client import Conflict, Outbox, Scoreboard
from tests.e2e.leader import environment

EXAMPLES = CLIENT / "examples"


@pytest.fixture
def environ(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Set what the examples read."""
    values = {
        "SCOREBOARD_URL": server.url,
        "SCOREBOARD_TOKEN": server.bearer(),
        "SCOREBOARD_OUTBOX": str(tmp_path / "outbox.db"),
        "CELERY_BROKER_URL": "memory://",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    yield values
    for name in ("fastapi_shop", "django_school", "celery_game"):
        sys.modules.pop(name, None)


def example(name: str) -> ModuleType:
    """Import an example by its path."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_the_shop_on_fastapi(environ: dict[str, str]) -> None:
    """An order that is paid twice counts once; the same order of another user is a conflict."""
    pytest.importorskip("fastapi", reason="FastAPI is not installed")
    from fastapi.testclient import TestClient

    with TestClient(example("fastapi_shop").app) as client:
        first = client.post("/orders/12/paid?user_id=shop-bob").json()
        assert first == {"score": 10, "rank": first["rank"], "isNew": True}
        assert client.post("/orders/12/paid?user_id=shop-bob").json()["isNew"] is False
        assert client.post("/orders/12/paid?user_id=shop-ann").status_code == 409
        assert "shop-bob" in [row["name"] for row in client.get("/ranking").json()]


def test_the_school_on_django(environ: dict[str, str]) -> None:
    """A lesson waits in the outbox, and a sender counts it."""
    pytest.importorskip("django", reason="Django is not installed")
    module = example("django_school")
    from django.test import Client

    client: Any = Client()
    for _ in range(2):
        assert client.post("/lessons/7/done?user_id=school-bob").json() == {"noted": True}
    assert client.get("/lessons/7/done?user_id=school-bob").status_code == 405
    outbox = Outbox(environ["SCOREBOARD_OUTBOX"])
    assert outbox.count() == 2
    assert module.scoreboard().sender(module.outbox()).drain() == 2
    rows = client.get("/ranking").json()["rows"]
    assert [row["score"] for row in rows if row["name"] == "school-bob"] == [10]
    module.scoreboard().close()
    module.outbox().close()


def test_the_game_on_celery(environ: dict[str, str]) -> None:
    """A task that is delivered twice counts once. A conflict fails the task."""
    pytest.importorskip("celery", reason="Celery is not installed")
    module = example("celery_game")
    module.app.conf.task_always_eager = True
    first = module.match_won.delay("game-bob", 4711).get()
    assert (first["score"], first["isNew"]) == (10, True)
    assert module.match_won.delay("game-bob", 4711).get()["isNew"] is False
    failed = module.match_won.delay("game-ann", 4711)
    with pytest.raises(Conflict):
        failed.get()
    module.scoreboard().close()


def test_the_readme_s_first_lines_run(server: Server) -> None:
    """As they stand there, with another address and a token."""
    text = (CLIENT / "README.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    code = code.replace("http://127.0.0.1:8080", server.url)
    ran = subprocess.run(
        [sys.executable, "-c", f"TOKEN = {server.bearer()!r}\n{code}"],
        env=environment({"PYTHONPATH": str(CLIENT)}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    score, _, applied = ran.stdout.split()
    assert (score, applied) == ("10", "True")
    with Scoreboard(server.url) as scoreboard:
        assert scoreboard.board().score("bob").score == 10


def test_the_wheel_has_the_types_and_nothing_else(tmp_path: Path) -> None:
    """It is built from a copy, so that nothing is left here."""
    copy = tmp_path / "python"
    shutil.copytree(CLIENT, copy, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = (tmp_path / "dist").glob("scoreboard_client-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "scoreboard_client/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"scoreboard_client"}
    sources = {f"scoreboard_client/{path.name}" for path in (CLIENT / "scoreboard_client").glob("*.py")}
    assert sources <= set(names)
