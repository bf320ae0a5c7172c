"""Display names as the public sees them: whole, as initials, or not at all."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.commands import PutUser
from server.live.board_view import BoardView
from server.live.editions import NO_EDITION, Channel
from server.live.lines import Lines, ViewerLines
from server.live.names import NameForm, initials, names_for
from tests.server.live.client_frames import take_server_frame
from tests.server.live.stage import PLAIN, Stage, told
from tests.server.live.test_encoding import named
from tests.server.live.watching import BareViewer, open_site


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Ann Kathrin", "A. K."),
        ("ann", "A."),
        ("  Ann\u00a0\tKathrin ", "A. K."),
        ("A B C D E", "A. B. C."),
        ("(Ann) 'Kat'", "A. K."),
        ("Player 7", "P. 7."),
        ("e\u0301mile zola", "\u00c9. Z."),
        ("\u00dfeta", "\u00df."),
        ("q\u0301\u0301\u0301\u0301ueen", "Q\u0301\u0301."),
        ("山田 太郎", "山. 太."),
        ("क्षमा", "क्."),
        ("🎉 Party", "P."),
        ("🎉 ***", None),
        ("", None),
    ],
)
def test_initials_are_the_first_letters_of_the_words(name: str, shown: str | None) -> None:
    """With their marks, in capitals where there is one; three at most; signs have none."""
    assert initials(name) == shown


@pytest.mark.parametrize(("form", "ann"), [("shown", "Ann Kathrin"), ("initials", "A. K."), ("hidden", None)])
def test_each_form_shows_the_user_itself_the_whole_name(form: NameForm, ann: str | None) -> None:
    """The others see the form; a user without a name has none."""
    users = named("ann", "Ann Kathrin")
    assert names_for(users, form).name("ann") == ann
    assert names_for(users, form, own="bob").name("ann") == ann
    assert names_for(users, form, own="ann").name("ann") == "Ann Kathrin"
    assert names_for(users, form).name("nobody") is None


def test_viewers_see_the_names_of_the_public() -> None:
    """Rows, a user's line and who overtook; all names in the live view, which needs scores:read."""
    stage = Stage({"main": PLAIN})
    stage.do(*(PutUser(user, name, True, "ops") for user, name in (("ann", "Ann Kathrin"), ("ben", "Ben"))))
    stage.score("ann")
    for view, ann, ben in ((BoardView("main"), "A. K.", "B."), (BoardView("main", live=True), "Ann Kathrin", "Ben")):
        channel = Channel(view, stage.scoreboard, lambda: 0, form="initials")
        [message] = told(channel, NO_EDITION)
        assert [row["displayName"] for row in message["entries"]] == [ann]
        lines, viewer = Lines(stage.scoreboard, lambda: 0, form="initials"), ViewerLines()
        lines.subscribe(viewer, view, "ann")
        assert _line_of(viewer)["displayName"] == ann
        viewer.wrote()
        if view.live:
            continue
        stage.score("ben", "ben")
        lines.board_changed("main")
        [part] = lines.take_due()
        part.look(part.lines)
        assert [row["displayName"] for row in _line_of(viewer)["overtaken"]] == [ben]
        stage.do(PutUser("ben", "Ben", False, "ops"))


def _line_of(viewer: ViewerLines) -> dict[str, Any]:
    frame = viewer.first()
    assert frame is not None
    taken = take_server_frame(bytearray(frame))
    assert taken is not None
    line: dict[str, Any] = msgspec.json.decode(taken[1])
    return line


async def test_a_channel_shows_its_viewers_the_form_of_the_configuration() -> None:
    """Over a socket, as a browser sees it."""
    async with open_site(form="hidden") as site:
        site.name("ann", "Ann Kathrin")
        site.score("ann")
        viewer = await BareViewer.open(site)
        message = await viewer.message()
        assert message["entries"] == [{"userId": "ann", "score": 10, "rank": 1}]
