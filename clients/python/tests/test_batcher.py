"""A real leader, and batches of many threads and tasks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
from board_server import BACKENDS, Server, free_port

from scoreboard_client import AsyncBatcher, AsyncScoreboard, BatcherClosed, Conflict, DeadlineExceeded, Scoreboard

COUNT = 200


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_task_gets_its_own_receipt(server: Server, board_id: str, backend: str) -> None:
    """Two hundred tasks, one of which contradicts another."""
    scores: dict[str, int] = {}
    conflicts: list[str] = []

    async def main() -> None:
        async with (
            AsyncScoreboard(server.url, token=server.bearer()) as scoreboard,
            scoreboard.board(board_id).batcher(size=64) as batcher,
        ):

            async def work(number: int) -> None:
                user_id = f"user-{number % 7}"
                receipt = await batcher.increment(user_id, action_id=f"{board_id}-{number}")
                assert (receipt.user_id, receipt.action_id) == (user_id, f"{board_id}-{number}")
                scores[user_id] = max(scores.get(user_id, 0), receipt.new_score)

            async def contradict() -> None:
                try:
                    await batcher.increment("somebody-else", action_id=f"{board_id}-0")
                except Conflict as error:
                    conflicts.append(error.code)

            await work(0)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(contradict)
                for number in range(1, COUNT):
                    tasks.start_soon(work, number)
        with pytest.raises(BatcherClosed):
            await batcher.increment("late", action_id="late")

    anyio.run(main, backend=backend)
    assert sum(scores.values()) == COUNT * 10
    assert conflicts == ["CONFLICT"]


def test_each_thread_gets_its_own_receipt(server: Server, board_id: str) -> None:
    """The same for threads."""
    with (
        Scoreboard(server.url, token=server.bearer()) as scoreboard,
        scoreboard.board(board_id).batcher() as batcher,
        ThreadPoolExecutor(16) as pool,
    ):
        ids = [f"{board_id}-{number}" for number in range(COUNT)]
        receipts = list(pool.map(lambda action_id: batcher.increment("bob", action_id=action_id), ids))
        assert [receipt.action_id for receipt in receipts] == ids
        assert max(receipt.new_score for receipt in receipts) == COUNT * 10
        with pytest.raises(Conflict):
            batcher.increment("ann", action_id=ids[0])
    with pytest.raises(BatcherClosed):
        batcher.increment("late", action_id="late")


@pytest.mark.parametrize("backend", BACKENDS)
def test_nobody_there_is_told_after_the_deadline(backend: str) -> None:
    """The fault is named, and the block ends though its senders would wait longer."""
    url = f"http://127.0.0.1:{free_port()}"

    async def main() -> None:
        async with AsyncScoreboard(url) as scoreboard, scoreboard.board().batcher() as batcher:
            with pytest.raises(DeadlineExceeded, match=url) as raised:
                await batcher.increment("bob", action_id="a1", deadline_s=0.3)
            assert raised.value.may_have_counted is False

    anyio.run(main, backend=backend)
    with Scoreboard(url) as scoreboard, scoreboard.board().batcher() as batcher:
        with pytest.raises(DeadlineExceeded, match=url):
            batcher.increment("bob", action_id="a1", deadline_s=0.3)
        with pytest.raises(ValueError, match="deadline_s"):
            batcher.increment("bob", action_id="a1", deadline_s=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_block_s_own_error_comes_out_as_it_is(server: Server, board_id: str, backend: str) -> None:
    """Not in a group. Who waits in another task is told; a block that is cancelled ends."""
    told: list[str] = []

    async def main() -> None:
        async with AsyncScoreboard(server.url, token=server.bearer()) as scoreboard, anyio.create_task_group() as tasks:
            board = scoreboard.board(board_id)

            async def wait_in_vain(batcher: AsyncBatcher) -> None:
                try:
                    await batcher.increment("bob", action_id=f"{board_id}-waits")
                except BatcherClosed as error:
                    told.append(str(error))

            async def fail() -> None:
                async with board.batcher(linger_s=60.0) as batcher:
                    tasks.start_soon(wait_in_vain, batcher)
                    await anyio.wait_all_tasks_blocked()
                    raise LookupError

            with pytest.raises(LookupError):
                await fail()
            with anyio.move_on_after(0.05) as scope:
                async with board.batcher():
                    await anyio.sleep_forever()
            assert scope.cancelled_caught

    anyio.run(main, backend=backend)
    assert len(told) == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_task_that_is_cancelled_leaves_the_others_alone(server: Server, board_id: str, backend: str) -> None:
    """And its action was not sent, since it was still waiting for others."""

    async def main() -> None:
        async with (
            AsyncScoreboard(server.url, token=server.bearer()) as scoreboard,
            scoreboard.board(board_id).batcher(linger_s=60.0) as batcher,
        ):
            with pytest.raises(DeadlineExceeded) as raised:
                await batcher.increment("bob", action_id=f"{board_id}-late", deadline_s=0.01)
            assert raised.value.may_have_counted is False
            with anyio.move_on_after(0.01):
                await batcher.increment("bob", action_id=f"{board_id}-cancelled")
            async with anyio.create_task_group() as tasks:

                async def last() -> None:
                    assert (await batcher.increment("bob", action_id=f"{board_id}-last")).new_score == 10

                tasks.start_soon(last)
                await anyio.wait_all_tasks_blocked()
                batcher._book.close()  # nothing lingers any more
                batcher._bell.ring()

    anyio.run(main, backend=backend)
