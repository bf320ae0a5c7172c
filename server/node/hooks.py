"""The webhooks of a node with a log: what they get of it (`server.webhooks`).

hooks = make_hooks(world, opened, role, keeper, erasures)       None: the configuration has none
"""

from __future__ import annotations

from engine.forgetful_log import ForgetfulLog
from server.api.periods import Periods
from server.node.erasure_keeper import ErasureKeeper
from server.node.period_keeper import PeriodKeeper
from server.node.surroundings import Surroundings
from server.role import CurrentRole
from server.webhooks.connecting import Resolver
from server.webhooks.cursor_store import CursorStore
from server.webhooks.due import Telling
from server.webhooks.hook import HookWorld
from server.webhooks.webhooks import Webhooks
from snapshots.opening import Opened


def make_hooks(
    world: Surroundings, opened: Opened, role: CurrentRole, keeper: PeriodKeeper, erasures: ErasureKeeper
) -> Webhooks | None:
    """Make the webhooks of the configuration. They deliver once they run, and while the role is that of a leader."""
    config, scoreboard = world.config, opened.scoreboard
    if not config.webhooks:
        return None
    log, form = ForgetfulLog(opened.log, erasures.unsettled), config.privacy.names
    hook_world = HookWorld(
        scoreboard=scoreboard,
        log=log,
        log_id=opened.log.tail.log_id.hex(),
        telling=Telling(scoreboard, log, Periods(scoreboard, keeper), erasures.unsettled, form),
        store=CursorStore(world.disk, config.data_dir),
        form=form,
        interval_s=config.live.interval_ms / 1000,
        clock_ms=world.clock.now_ms,
        uniform=world.uniform,
        random_bytes=world.random_bytes,
        resolve=Resolver(),
        write_with_room=world.write_with_room,
        metrics=world.metrics,
    )
    return Webhooks(config.webhooks, hook_world, role)
