"""A node that slept finds old words waiting for it. They do not make it fresh."""

from __future__ import annotations

from pathlib import Path

import trio
import trio.testing

from server.quorum.words import decode
from server.role import State
from tests.quorum.members import ALARM_SECONDS, leads, member, until
from tests.quorum.model_stream import Cloud


async def test_words_that_waited_for_a_node_make_it_no_fresher(tmp_path: Path) -> None:
    """They were said before it was cut off, its own ones too: nobody knows how old they are."""
    cloud = Cloud()
    async with member(tmp_path, cloud, "a") as a:
        await leads(a)
        async with member(tmp_path, cloud, "b") as b:
            await until(b, State.FOLLOWING)
            stream, words = cloud.streams["b"], list[bytes]()
            take = stream.told

            leader_heard = trio.Event()

            def told(word: bytes) -> None:
                words.append(word)
                take(word)
                said = decode(word)
                if said is not None and said.leads:
                    leader_heard.set()

            stream.told = told  # type: ignore[method-assign]
            with trio.fail_after(ALARM_SECONDS):
                await leader_heard.wait()
                cloud.cut("b")
                await until(b, State.STALE)
                for word in list(words):
                    take(word)
                await trio.testing.wait_all_tasks_blocked()
            assert not stream._receive.statistics().current_buffer_used
            assert b.node.role.now.state is State.STALE
