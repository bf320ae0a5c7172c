"""All webhooks of a node. They deliver while it leads.

    hooks = Webhooks(config.webhooks, world, role)
    await nursery.start(hooks.run)
    hooks.applied(events, {"main"})         right after each frame was applied
    hooks.statuses(); await hooks.enable("orders"); hooks.warnings()

Rules:
- Each hook has a task of its own. What one waits for, no other waits for.
- A replica delivers nothing. When it is promoted it goes on from the cursors in its directory, if they are of the
  leader whose place it takes (`server.webhooks.cursor`). Without them it begins with the promotion, and says so.
- A leader that is deposed stops at once: another one delivers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from engine.events import Event, Incremented, UserErased
from server.api.webhook_forms import WebhookObject
from server.faults import first_of
from server.role import CurrentRole, Role, State
from server.settings.webhooks import WebhookConfig
from server.webhooks.hook import Hook, HookWorld
from server.webhooks.rare_events import RareEvents


class Webhooks:
    """See above."""

    def __init__(self, configs: Sequence[WebhookConfig], world: HookWorld, role: CurrentRole) -> None:
        self._world = world
        self._role = role
        self._rare = RareEvents(world.scoreboard.seq)
        self._hooks = {config.name: Hook(config, world, self._rare) for config in configs}
        self._changed = trio.Event()
        role.on_change(self._role_changed)

    def applied(self, events: Sequence[Event], board_ids: set[str]) -> None:
        """Take a frame that was applied, and the boards that it touched."""
        if events and type(events[0]) is not Incremented:
            self._rare.took(events)
            for event in events:
                if type(event) is UserErased:
                    for hook in self._hooks.values():
                        hook.forget(event.user_id)
        for hook in self._hooks.values():
            hook.applied(board_ids)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Deliver while this node leads, until cancelled. Raises `DiskFault`.

        A leader has started once it has read all cursors.
        """
        started: Callable[[], None] = task_status.started
        if self._leads:
            self._begin()
        while True:
            self._changed = trio.Event()
            if self._leads:
                try:
                    await self._deliver(started)
                except ExceptionGroup as group:
                    raise first_of(group) from None
            else:
                started()
                await self._changed.wait()
            started = _nobody_waits

    async def _deliver(self, started: Callable[[], None]) -> None:
        """Run all hooks while this node leads."""
        async with trio.open_nursery() as nursery:
            for hook in self._hooks.values():
                await nursery.start(hook.run)
            started()
            while self._leads:
                await self._changed.wait()
                self._changed = trio.Event()
            nursery.cancel_scope.cancel()

    @property
    def _leads(self) -> bool:
        return self._role.now.state is State.LEADING

    def _role_changed(self, before: Role, now: Role) -> None:
        if now.state is State.LEADING and before.state is not State.LEADING:
            self._begin()
        self._changed.set()

    def _begin(self) -> None:
        """Begin to lead, in the moment in which the node does: nothing that comes later is missed."""
        self._rare.restart(self._world.scoreboard.seq)
        for hook in self._hooks.values():
            hook.lead()

    def statuses(self) -> list[WebhookObject]:
        """Say how far each hook is, in the order of the configuration."""
        return [hook.status() for hook in self._hooks.values()]

    async def enable(self, name: str) -> WebhookObject | None:
        """Have a hook deliver again, and at once; None if there is none of this name."""
        hook = self._hooks.get(name)
        if hook is None:
            return None
        await hook.enable()
        return hook.status()

    def warnings(self) -> list[str]:
        """Give what an operator should know of hooks that are disabled."""
        return [
            f"the webhook {name} is disabled: GET /webhooks says why, POST /webhooks/{name}/enable goes on"
            for name, hook in self._hooks.items()
            if hook.disabled
        ]


def _nobody_waits() -> None:
    """Do nothing: the start is over."""
