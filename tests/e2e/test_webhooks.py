"""Webhooks of a real leader that is killed with -9: what nobody acknowledged comes again, with its id, in order."""

from __future__ import annotations

from pathlib import Path

import trio

from tests.e2e import leader as outside
from tests.e2e.client import Client
from tests.server.webhooks.hooked import variable
from tests.server.webhooks.receiver import Reply, receiving

ROUNDS = 3


async def test_nothing_is_lost_by_kills(tmp_path: Path) -> None:
    """Periods end while the receiver fails, hangs or is slow, and the leader dies in between."""
    with trio.fail_after(3 * outside.ALARM_SECONDS):
        async with receiving() as receiver:
            hooks = variable({"shop": receiver}, events=["period.ended", "user.overtaken"])
            environ = {"SCOREBOARD_WEBHOOKS": hooks, "SCOREBOARD_LIVE_INTERVAL_MS": "10"}
            ended: list[str] = []
            for number in range(ROUNDS):
                receiver.always = (Reply(hang=True), Reply(503, (("retry-after", "3600"),)), Reply())[number]
                async with outside.serving(tmp_path / "data", extra=environ) as node:
                    async with Client(node.host, node.port, outside.token("admin")) as client:
                        for times in range(2):
                            for user in ("ann", "ben"):
                                item = {"userId": user, "actionId": f"{number}-{times}-{user}"}
                                assert (await client.post("/scores/increment", item)).status == 200
                            answer = await client.post("/boards/main/reset", {})
                            ended.append(f"1-{answer.json()['seq']}-period_ended")
                        if number < ROUNDS - 1:
                            await receiver.next()
                        else:
                            while receiver.got[-1].id != ended[-1]:
                                await receiver.next()
                    await node.kill()
            acknowledged = list(dict.fromkeys(each.id for each in receiver.got if each.kind == "period.ended"))
            assert acknowledged == ended
            bodies = {(each.id, each.body) for each in receiver.got}
            assert len(bodies) == len({each.id for each in receiver.got}), "a repeat says the same"
