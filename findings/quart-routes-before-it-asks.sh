#!/usr/bin/env bash
# Quart looks for a route before it calls `before_request` functions, and keeps the failure of the search to itself.
#
# Seen with Quart 0.22.0 and Werkzeug 3.1.9, on Python 3.11: an app without any route, whose `before_request` function
# answers every request.
# - A request is answered with 200, although the router was asked once and raised NotFound (the request keeps it as
#   `routing_exception`).
# - With a `create_url_adapter` that gives None the router is not asked, and the answer is the same.
# - Then `url_for` raises RuntimeError within a request, because there is nothing to build an address with.
#
# So an app that answers all in `before_request` pays for a search and an exception in every request.
# Fails if any of this is no longer so.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check quart==0.22.0 werkzeug==3.1.9
"$place/venv/bin/python" - <<'PYTHON'
import asyncio

from quart import Quart, request, url_for
from werkzeug.routing import MapAdapter

searches = []
search = MapAdapter.match


def counted(self, *arguments, **options):
    searches.append(1)
    return search(self, *arguments, **options)


MapAdapter.match = counted


class WithoutRouter(Quart):
    def create_url_adapter(self, request):
        return None


async def visit(kind):
    app = kind("app", static_folder=None)
    seen = {}

    @app.before_request
    async def answer():
        seen["kept"] = type(request.routing_exception).__name__
        try:
            url_for("nothing")
        except Exception as error:
            seen["url_for"] = type(error).__name__
        return "answered"

    searches.clear()
    reply = await app.test_client().get("/nowhere")
    return reply.status_code, (await reply.get_data()).decode(), len(searches), seen["kept"], seen["url_for"]


usual, without = asyncio.run(visit(Quart)), asyncio.run(visit(WithoutRouter))
print("status, body, searches, exception kept, url_for raises")
print("Quart as it is  ", *usual)
print("without a router", *without)
assert usual == (200, "answered", 1, "NotFound", "BuildError"), usual
assert without == (200, "answered", 0, "NoneType", "RuntimeError"), without
PYTHON
