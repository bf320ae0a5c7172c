"""A school on Django: a finished lesson goes into an outbox, which keeps it while the board is down.

    export SCOREBOARD_URL=http://127.0.0.1:8080 SCOREBOARD_TOKEN=… SCOREBOARD_OUTBOX=outbox.db
    python django_school.py runserver
    python django_school.py send            beside it: sends the outbox; start as many as you like, one sends at a time
    curl -X POST 'http://127.0.0.1:8000/lessons/7/done?user_id=bob'

In a project the view and the settings lie in files of their own, and `send` is a management command.
"""

from __future__ import annotations

import os
import sys
from functools import cache

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from scoreboard_client import Outbox, Scoreboard

settings.configure(
    DEBUG=False,
    ALLOWED_HOSTS=["127.0.0.1", "localhost", "testserver"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("DJANGO_SECRET_KEY", "set one before you serve this to others"),
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()


@cache
def outbox() -> Outbox:
    """Open the outbox of this process."""
    return Outbox(os.environ["SCOREBOARD_OUTBOX"])


@cache
def scoreboard() -> Scoreboard:
    """Make the client of this process: threads share it."""
    return Scoreboard(os.environ["SCOREBOARD_URL"].split(","), token=os.environ["SCOREBOARD_TOKEN"])


@csrf_exempt
@require_POST
def lesson_done(request: HttpRequest, lesson: int) -> JsonResponse:
    """Note a finished lesson. Its points count once the school's own transaction is through, and only then."""
    user_id = request.GET["user_id"]
    with transaction.atomic():
        # Here the school writes its own rows.
        transaction.on_commit(lambda: outbox().put(user_id, action_id=f"lesson-{lesson}-{user_id}"))
    return JsonResponse({"noted": True})


def ranking(request: HttpRequest) -> JsonResponse:
    """Show the first ten."""
    top = scoreboard().board("main").top()
    return JsonResponse({"rows": [{"rank": row.rank, "name": row.name, "score": row.score} for row in top.entries]})


urlpatterns = [path("lessons/<int:lesson>/done", lesson_done), path("ranking", ranking)]


if __name__ == "__main__":
    if sys.argv[1:] == ["send"]:
        scoreboard().sender(outbox()).run()
    else:
        execute_from_command_line(sys.argv)
