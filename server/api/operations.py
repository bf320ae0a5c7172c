"""The routes for operators and browsers: health, readiness, metrics, the API's description, the pages."""

from __future__ import annotations

import msgspec

from server import metrics
from server.access.auth import Principal
from server.api import openapi
from server.api.answers import HealthAnswer, PromotedAnswer, ReadyAnswer
from server.api.dependencies import Dependencies
from server.api.follower_forms import followers_answer
from server.api.pages import document
from server.http.handshake import UPGRADE_HEADERS
from server.http.messages import JSON, NO_STORE, RETRY_SOON, Details, Refused, Request, Response, invalid
from server.http.target import query_values
from server.state_gauges import State

LEADER = "leader"
"""The role that `/readyz` can be asked for: load balancers send writes there."""


class Operations:
    """Answers to the routes that are not about scores. A method is the handler of that name in the table of routes."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._dependencies = dependencies
        self._openapi = document(openapi.encoded(public_reads=dependencies.public_reads), JSON)

    async def healthz(self, _request: Request, _caller: Principal) -> Response:
        return Response(200, msgspec.json.encode(HealthAnswer()), JSON, NO_STORE)

    async def readyz(self, request: Request, _caller: Principal) -> Response:
        """Ready: what is read here is fresh enough, and the actor takes commands. With `role=leader` it also leads.

        A disk that is full, or soon will be, is a warning: reads go on, and nobody else would answer them.
        """
        wanted = query_values(request.query, ("role",)).get("role")
        if wanted not in (None, LEADER):
            raise invalid("role", f'role must be "{LEADER}", or left out.')
        role = self._dependencies.role.now
        if wanted == LEADER and role.successor is None and not role.draining:
            self._dependencies.checks.check_leads()
        reason = self._not_ready()
        if reason is not None:
            details: Details = {"reason": reason}
            if role.successor is None or role.draining:
                raise Refused(503, "OVERLOADED", f"Not ready: {reason}.", details, RETRY_SOON)
            details |= self._dependencies.checks.not_leader().details
            raise Refused(503, "NOT_LEADER", f"Not ready: {reason}.", details, RETRY_SOON)
        scoreboard, disk = self._dependencies.scoreboard, self._dependencies.storage().warning
        warnings = [*([] if disk is None else [disk]), *self._dependencies.warnings()] or msgspec.UNSET
        answer = ReadyAnswer(scoreboard.epoch, scoreboard.seq, warnings=warnings)
        return Response(200, msgspec.json.encode(answer), JSON, NO_STORE)

    async def metrics(self, _request: Request, _caller: Principal) -> Response:
        self._dependencies.metrics.observe(self._state())
        hooks = self._dependencies.hooks
        for hook in () if hooks is None else hooks.statuses():
            self._dependencies.metrics.webhook(hook.name, hook.lag, disabled=hook.disabled)
        return Response(200, self._dependencies.metrics.render(), metrics.CONTENT_TYPE, NO_STORE)

    async def openapi(self, request: Request, _caller: Principal) -> Response:
        return self._openapi.answer(request)

    async def docs(self, request: Request, _caller: Principal) -> Response:
        return self._dependencies.pages["docs"].answer(request)

    async def console(self, request: Request, _caller: Principal) -> Response:
        """Answer with the page, unless the configuration turns it off."""
        page = self._dependencies.pages.get("console")
        if page is None:
            raise Refused(404, "NOT_FOUND", "The console is turned off: [console] enabled is false.")
        return page.answer(request)

    async def index(self, request: Request, _caller: Principal) -> Response:
        return self._dependencies.pages["index"].answer(request)

    async def element(self, request: Request, _caller: Principal) -> Response:
        return self._dependencies.pages["element"].answer(request)

    async def live(self, _request: Request, _caller: Principal) -> Response:
        """Refuse: the live lane serves this, but only as the first request of a connection."""
        message = "This is a WebSocket: open it on a connection of its own, with an Upgrade header."
        raise Refused(426, "INVALID_REQUEST", message, {"field": "Upgrade"}, UPGRADE_HEADERS)

    async def stream(self, _request: Request, _caller: Principal) -> Response:
        """Refuse: the live lane serves this."""
        raise Refused(400, "INVALID_REQUEST", "This is a stream of events: open it with GET.", {"field": "method"})

    async def promote(self, _request: Request, _caller: Principal) -> Response:
        epoch, seq = await self._dependencies.promote()
        return Response(200, msgspec.json.encode(PromotedAnswer(epoch, seq)), JSON, NO_STORE)

    async def followers(self, _request: Request, _caller: Principal) -> Response:
        scoreboard, linked = self._dependencies.scoreboard, self._dependencies.followers()
        answer = followers_answer(linked, scoreboard.epoch, scoreboard.seq)
        return Response(200, msgspec.json.encode(answer), JSON, NO_STORE)

    def _not_ready(self) -> str | None:
        reason = self._dependencies.freshness.not_ready()
        dependencies = self._dependencies
        if reason is None and dependencies.role.now.takes_writes and not dependencies.writer.statistics().accepting:
            return "the server is stopping"  # the role does not know yet that the disk failed
        return reason

    def _state(self) -> State:
        scoreboard = self._dependencies.scoreboard
        storage = self._dependencies.storage()
        age_ms = None if storage.snapshot_ms is None else max(0, self._dependencies.clock_ms() - storage.snapshot_ms)
        return State(
            epoch=scoreboard.epoch,
            seq=scoreboard.seq,
            users={board_id: len(board.public) for board_id, board in scoreboard.boards.items()},
            registered_users=len(scoreboard.users),
            actions=len(scoreboard.actions),
            action_index_bytes=scoreboard.actions.bytes,
            actions_sealed=scoreboard.actions.sealed.count,
            action_files=len(scoreboard.actions.sealed.infos),
            action_reads=scoreboard.actions.sealed.reads,
            inbox_commands=self._dependencies.writer.statistics().waiting,
            log_bytes=storage.log_bytes,
            log_segments=storage.log_segments,
            snapshot_seq=storage.snapshot_seq,
            snapshot_age_seconds=None if age_ms is None else age_ms / 1000,
            snapshots_failed=storage.snapshots_failed,
            disk_free_bytes=storage.free_bytes,
            erasures_pending=storage.erasures_pending,
            erasure_age_seconds=None if storage.erasure_age_ms is None else storage.erasure_age_ms / 1000,
            open_reviews=scoreboard.reviews.open_count,
            held_actions=scoreboard.reviews.holds.count,
            reviews_passed_over=scoreboard.reviews.passed_over,
            review_flags={str(rule): count for rule, count in scoreboard.reviews.flags.items()},
            live_enabled=scoreboard.flags.live,
            ready=self._not_ready() is None,
            followers=len(self._dependencies.followers()),
            lag=self._dependencies.freshness.lag(),
        )
