"""The life of the application behind the listener: started before the first request, stopped after the last."""

from __future__ import annotations

import pytest
import trio
from quart_trio import QuartTrio
from structlog.typing import EventDict

from server.lanes.hypercorn_pipe import Receive, Scope, Send
from server.lanes.lifespan import NotStarted
from tests.server.lanes.support import Played, open_listener


async def test_the_application_is_started_and_stopped_once() -> None:
    """Before the first request and after the last, whatever the number of connections."""
    played = Played()
    async with open_listener(played) as served:
        assert played.lifespan == ["lifespan.startup"]
        for _ in range(3):
            await served.ask_once()
    assert played.lifespan == ["lifespan.startup", "lifespan.shutdown"]


async def test_an_application_that_does_not_start_keeps_the_door_from_opening() -> None:
    """Its reason comes out of `run`, and nothing was served."""
    app = QuartTrio(__name__)

    @app.before_serving
    async def fail() -> None:
        raise ValueError("no database")

    with pytest.RaisesGroup(pytest.RaisesExc(NotStarted, match="no database")):
        async with open_listener(app):
            pytest.fail("the listener is open")


async def test_an_application_that_is_never_ready_keeps_the_door_from_opening() -> None:
    """There is a limit to how long it may take."""

    async def application(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await trio.sleep_forever()

    with pytest.RaisesGroup(pytest.RaisesExc(NotStarted, match=r"after 0\.01 seconds")):
        async with open_listener(application, startup_seconds_max=0.01):
            pytest.fail("the listener is open")


async def test_an_application_without_a_life_is_served_too(logged: list[EventDict]) -> None:
    """ASGI lets an application refuse the lifespan; it is told, without the exception's words."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise ValueError("a secret")
        await Played()(scope, receive, send)

    async with open_listener(application) as served:
        assert (await served.ask_once()).body == b"hello"
    assert [line["kinds"] for line in logged if line["event"] == "application_has_no_lifespan"] == [["ValueError"]]
    assert "secret" not in str(logged)


async def test_an_application_that_does_not_stop_is_left_behind() -> None:
    """The end of the server does not hang on it."""

    async def application(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await trio.sleep_forever()

    async with open_listener(application, startup_seconds_max=0.01):
        pass
