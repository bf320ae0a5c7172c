"""Older actions lie in files: what is applied stays applied, over restarts, damage, erasures and crashes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from engine import action_blocks
from engine.action_run import Run
from engine.actions import key_of
from engine.actor import Submission
from engine.commands import Increment, Outcome, Receipt, Rejection
from engine.disk import RealDisk
from engine.errors import ActionsUnreadable, RunDamaged
from engine.sealed_actions import Found, Want
from server.cli.main import main
from snapshots.mending import Mended
from snapshots.opening import open_directory
from snapshots.sealing import IndexRules
from snapshots.store import Store
from tests.snapshots.directories import RULES, InlineDisk, Killed, MortalDisk, Told
from tests.snapshots.forgetting import command
from tests.snapshots.serving import Served, serving

ON_DISK = IndexRules("disk")
BLOCK = 16


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action_blocks, "BLOCK_ACTIONS", BLOCK)


def runs_in(directory: Path) -> list[str]:
    """The blocks of the files of actions."""
    return sorted(path.name[:21] for path in (directory / "actions").glob("*.run"))


@contextlib.asynccontextmanager
async def serving_sealed(directory: Path) -> AsyncIterator[Served]:
    """Serve after 100 actions, 80 of which a checkpoint sealed."""
    async with serving(Served(directory, index=ON_DISK)) as served:
        await served.write(100)
        await served.checkpointer.take()
        yield served


def spoil(path: Path) -> bytes:
    """Overwrite the first bytes of a file; give what it had."""
    whole = path.read_bytes()
    path.write_bytes(bytes(40) + whole[40:])
    return whole


def action(number: int, *, reason: str = "ACTION_COMPLETED", user: str | None = None) -> Increment:
    """The command that `Served.increments` made with this number."""
    return Increment(user or f"user-{number % 30}", f"act-{number}", reason, "main", "backend")


def forgotten_in(served: Served) -> list[int]:
    """The number of forgotten marks in each file."""
    runs = served.opened.scoreboard.actions.sealed.runs or ()
    return [run.forgotten for run in runs if isinstance(run, Run)]


async def submit(served: Served, *commands: Increment) -> list[Outcome]:
    with trio.fail_after(10):
        return await served.actor.submit(commands)


async def check_known(served: Served, numbers: Iterator[int] | range) -> None:
    """All these actions were applied, each by the event of its number; none is applied again."""
    before = served.seq
    for number in numbers:
        (receipt,) = await submit(served, action(number))
        assert isinstance(receipt, Receipt), receipt
        assert (receipt.applied, receipt.seq) == (False, number)
    assert served.seq == before


async def test_older_actions_go_to_files_and_stay_applied(tmp_path: Path) -> None:
    """Two checkpoints seal what is due; a restart opens the files; every action is still known by its seq."""
    async with serving_sealed(tmp_path) as served:
        actions = served.opened.scoreboard.actions
        assert (actions.sealed.blocks, actions.recent, len(actions)) == (5, 20, 100)
        assert runs_in(tmp_path) == ["0000000000-0000000004", "0000000004-0000000005"]
        await check_known(served, range(1, 101))
        await served.write(100)
        await served.checkpointer.take()
        ends = [(0, 4), (4, 5), (4, 8), (8, 12)]
        assert runs_in(tmp_path) == [f"{first:010}-{end:010}" for first, end in ends]
        await served.write(1)
        digest = served.digest()
        actions._check()
    async with serving(Served(tmp_path, index=ON_DISK)) as again:
        assert again.digest() == digest
        assert again.opened.scoreboard.actions.recent == 201 - 12 * BLOCK
        await check_known(again, range(1, 202))
        (conflict,) = await submit(again, action(3, user="another"))
        assert isinstance(conflict, Rejection)
        assert (conflict.code, conflict.details["seq"]) == ("CONFLICT", 3)
        await again.write(60)
        await again.checkpointer.take()
        await again.write(1)
        await again.checkpointer.take()
        ends = [(0, 4), (4, 8), (8, 12), (12, 13), (13, 14), (14, 15)]
        assert runs_in(tmp_path) == [f"{first:010}-{end:010}" for first, end in ends], "what no snapshot names is gone"
        await check_known(again, range(1, 263))


async def test_a_state_in_memory_and_one_on_disk_are_equal(tmp_path: Path) -> None:
    """Where actions lie is no part of the state: the digests are equal, and so are they after an erasure."""
    digests = []
    for index in (ON_DISK, IndexRules("memory")):
        async with serving(Served(tmp_path / index.index, index=index)) as served:
            for _ in range(3):
                await served.write(50)
                await served.checkpointer.take()
            before = served.digest()
            await served.actor.submit([command(served.opened, "user-7")])
            digests.append((before, served.digest()))
    assert digests[0] == digests[1]
    assert digests[0][0] != digests[0][1]


@contextlib.asynccontextmanager
async def reading_later(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Served, trio.Event]]:
    """Serve with sealed actions. Reads of the disk wait for the event."""
    async with serving_sealed(directory) as served:
        gate = trio.Event()

        async def later(work: Callable[[], object], **_: object) -> object:
            await gate.wait()
            return work()

        monkeypatch.setattr("engine.action_reading.run", later)
        yield served, gate


async def test_only_the_submission_that_needs_a_read_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While an old action is read, new ones are applied; then the old one gets its answer."""
    async with reading_later(tmp_path, monkeypatch) as (served, gate):
        answers: list[str] = []

        async def ask(number: int) -> None:
            (receipt,) = await submit(served, action(number))
            assert isinstance(receipt, Receipt)
            answers.append(f"{number} {receipt.applied}")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 1)
            await trio.testing.wait_all_tasks_blocked()
            await ask(101)
            await ask(95)
            assert answers == ["101 True", "95 False"]
            assert served.actor.statistics().waiting == 1
            gate.set()
        assert answers[2:] == ["1 False"]


async def submit_apart(served: Served, *numbers: int) -> AsyncIterator[dict[int, str]]:
    """Submit actions as one submission, each of a sender of its own; yield what each was told, at once and later."""
    told: dict[int, str] = {}

    def note(part: Submission) -> None:
        for at, sender in enumerate(part.senders):
            assert sender not in told
            outcome = part.error or part.outcomes[at]
            told[sender] = f"{outcome.action_id} {outcome.applied}" if isinstance(outcome, Receipt) else repr(outcome)

    served.actor.submit_nowait([action(number) for number in numbers], note, numbers)
    for _ in range(2):
        await trio.testing.wait_all_tasks_blocked()
        yield dict(told)


async def test_of_several_senders_only_those_wait_that_need_a_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that came together are one submission. A new action in it does not wait for the old ones beside it."""
    async with reading_later(tmp_path, monkeypatch) as (served, gate):
        answers = submit_apart(served, 1, 101, 2, 95)
        assert await anext(answers) == {101: "act-101 True", 95: "act-95 False"}
        assert served.actor.statistics().waiting == 2
        gate.set()
        assert await anext(answers) == {
            101: "act-101 True", 95: "act-95 False", 1: "act-1 False", 2: "act-2 False",
        }  # fmt: skip
        assert served.actor.statistics().waiting == 0


async def test_a_damaged_file_fails_only_the_senders_that_need_it(tmp_path: Path) -> None:
    """Others of the same submission are answered: those of new actions, and those of other files."""
    async with serving_sealed(tmp_path) as served:
        (path,) = (tmp_path / "actions").glob("0000000000-*.run")
        spoil(path)
        answers = submit_apart(served, 70, 1, 101)
        assert await anext(answers) == {70: "act-70 False", 1: repr(ActionsUnreadable()), 101: "act-101 True"}
        await anext(answers)
        await check_known(served, range(1, 102))


async def test_what_was_not_found_is_asked_again_after_more_was_sealed(tmp_path: Path) -> None:
    """The filters say no too rarely here: every new action is read. One that is applied and sealed then is known."""
    async with serving_sealed(tmp_path) as served:
        sealed = served.opened.scoreboard.actions.sealed
        key = key_of("act-150")
        assert sealed.runs is not None
        assert sealed.unread([key]) == []
        sealed.note([Found(key, 0, 0)])
        wanted = Want(key, sealed.runs[0], 0)
        await served.write(100)
        await served.checkpointer.take()
        assert wanted.run.read(wanted.entry, 1, 2) is None, "a replaced run is still read by who has it"
        sealed.note([Found(key, 0, 0)])  # a late answer about the runs of before
        await check_known(served, range(150, 151))


async def test_a_damaged_file_is_told_and_made_anew(tmp_path: Path) -> None:
    """Who needs it is refused, with nothing done; others go on; soon it is whole again."""
    async with serving_sealed(tmp_path) as served:
        (path,) = (tmp_path / "actions").glob("0000000000-*.run")
        whole = spoil(path)
        with pytest.raises(ActionsUnreadable):
            await submit(served, action(1))
        await submit(served, action(101))
        await trio.testing.wait_all_tasks_blocked()
        assert [type(each) for each in served.told.faults] == [RunDamaged, Mended]
        assert path.read_bytes() == whole
        await check_known(served, range(1, 102))


async def test_a_damaged_file_that_sealing_comes_upon_is_made_anew(tmp_path: Path) -> None:
    """The checkpoint that would join it fails; the next one finds it whole."""
    async with serving_sealed(tmp_path) as served:
        (path,) = (tmp_path / "actions").glob("0000000004-*.run")
        whole = spoil(path)
        await served.write(100)
        with pytest.raises(RunDamaged):
            await served.checkpointer.take()
        await trio.testing.wait_all_tasks_blocked()
        assert path.read_bytes() == whole
        await served.checkpointer.take()
        assert served.opened.scoreboard.actions.sealed.blocks == 12
        await check_known(served, range(1, 201))


@pytest.mark.parametrize("damage", ["gone", "tables", "footer", "cut"])
async def test_a_start_makes_a_missing_or_damaged_file_anew(tmp_path: Path, damage: str) -> None:
    async with serving(Served(tmp_path, index=ON_DISK)) as served:
        await served.write(200)
        await served.checkpointer.take()
        digest = served.digest()
    (path,) = (tmp_path / "actions").glob("0000000004-*.run")
    whole = path.read_bytes()
    at = {"tables": 64 * 32 + 5, "footer": len(whole) - 20}.get(damage, 0)
    path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else whole[:at] + b"??" + whole[at + 2 :])
    if damage == "gone":
        path.unlink()
    async with serving(Served(tmp_path, index=ON_DISK)) as again:
        assert path.read_bytes() == whole
        assert len(again.told.faults) == 2
        assert again.digest() == digest
        await check_known(again, range(1, 201))


async def test_without_the_log_a_missing_file_refuses_the_start(tmp_path: Path) -> None:
    """Nobody knows which actions were applied, so nothing is served. The error names file, seq and remedy."""
    async with serving(Served(tmp_path, index=ON_DISK)) as served:
        for _ in range(4):
            await served.write(100)
            await served.checkpointer.take()
        served.opened.log.remove_before(150)
    (path,) = (tmp_path / "actions").glob("0000000000-0000000016-*.run")
    path.unlink()
    with pytest.raises(RunDamaged, match=r"can't be made anew, because the log") as refused:
        open_directory(InlineDisk(), str(tmp_path), RULES, tell=Told())
    assert (refused.value.path, refused.value.seq) == (str(path), 1)
    assert "backup" in refused.value.remedy


async def test_files_forget_erased_users(tmp_path: Path) -> None:
    """After the next checkpoint the files have no marks of the user's actions; they stay applied, and say so."""
    async with serving_sealed(tmp_path) as served:
        await served.actor.submit([command(served.opened, "user-7")])
        assert forgotten_in(served) == [0, 0]
        await served.checkpointer.take()
        assert forgotten_in(served) == [2, 1]
        for number in (7, 37, 67, 97):
            (rejection,) = await submit(served, action(number))
            assert isinstance(rejection, Rejection)
            assert (rejection.code, rejection.details["seq"]) == ("ERASED", number)
        digest = served.digest()
    async with serving(Served(tmp_path, index=ON_DISK)) as again:
        assert again.digest() == digest
        (rejection,) = await submit(again, action(7))
        assert isinstance(rejection, Rejection)
        assert rejection.code == "ERASED"


async def test_a_start_removes_what_a_process_left_that_was_killed_after_an_erasure(tmp_path: Path) -> None:
    """A file that no snapshot names has marks of the user's actions."""
    async with serving_sealed(tmp_path) as served:
        (path,) = (tmp_path / "actions").glob("0000000004-*.run")
        with_marks = path.read_bytes()
        await served.actor.submit([command(served.opened, "user-7")])
        await served.checkpointer.take()
    left = path.with_name(f"0000000004-0000000006-{'0' * 16}.run")
    left.write_bytes(with_marks)
    async with serving(Served(tmp_path, index=ON_DISK)):
        await trio.testing.wait_all_tasks_blocked()
        assert not left.exists()
        assert path.exists()


async def test_a_crash_at_any_step_of_a_checkpoint_loses_no_action(tmp_path: Path) -> None:
    """Killed at each step in turn, the next start knows every action once, and can checkpoint."""
    dies_at, survived = 0, False
    while not survived:
        dies_at += 1
        directory = tmp_path / str(dies_at)
        async with serving(Served(directory, index=ON_DISK)) as served:
            await served.write(60)
            await served.checkpointer.take()
            await served.write(60)
        disk = MortalDisk(dies_at)
        survived = False
        with contextlib.suppress(Killed):
            dying = Served(directory, disk=disk, index=ON_DISK)
            await dying.checkpointer.take()
            survived = True
            dying.opened.log.close()
        async with serving(Served(directory, index=ON_DISK)) as again:
            await check_known(again, range(1, 121))
            await again.checkpointer.take()
            await check_known(again, range(1, 121))
    assert dies_at > 10


async def test_auto_begins_when_memory_is_used_up_and_goes_on(tmp_path: Path) -> None:
    """Below `memory_bytes` nothing is sealed. From then on it is as with "disk"."""
    index = IndexRules("auto", 40 * 200)
    async with serving(Served(tmp_path, index=index)) as served:
        actions = served.opened.scoreboard.actions
        limit = actions.recent_bytes + 32 * 100
        served.sealer._rules = IndexRules("auto", limit)
        await served.write(90)
        await served.checkpointer.take()
        assert actions.sealed.blocks == 0
        await served.write(60)
        await served.checkpointer.take()
        assert actions.sealed.blocks == 8
        await served.write(20)
        await served.checkpointer.take()
        assert actions.sealed.blocks == 10
        await check_known(served, range(1, 171))


async def test_a_snapshot_names_its_files_and_the_next_ones_keep_them(tmp_path: Path) -> None:
    """Every kept snapshot can be opened: the files that it names are there."""
    async with serving(Served(tmp_path, index=ON_DISK)) as served:
        for _ in range(6):
            await served.write(40)
            await served.checkpointer.take()
            store = Store(RealDisk(), str(tmp_path))
            for info in store.list():
                manifest = store.manifest(info)
                for run in manifest.runs if manifest is not None else ():
                    assert (tmp_path / "actions" / action_blocks.run_name(run)).exists()


async def test_verify_reads_the_files_of_a_snapshot(tmp_path: Path) -> None:
    """A flipped byte anywhere in a file that a snapshot names is found, and so is a missing file."""
    async with serving_sealed(tmp_path):
        pass
    (path,) = (tmp_path / "actions").glob("0000000000-*.run")
    whole = path.read_bytes()
    runner = CliRunner()
    command = ["snapshot", "verify", "--data-dir", str(tmp_path)]
    assert runner.invoke(main, command).exit_code == 0
    for at in (33, len(whole) - 300):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        found = runner.invoke(main, command)
        assert (found.exit_code, "a file of actions is not" in found.output) == (1, True), found.output
    path.unlink()
    assert runner.invoke(main, command).exit_code == 1


async def test_a_file_that_is_removed_while_it_is_used_is_written_anew(tmp_path: Path) -> None:
    """The open one still has all: at the next checkpoint, or when a replica asks, it is back. No log is needed."""
    async with serving(Served(tmp_path, index=ON_DISK)) as served:
        for _ in range(4):
            await served.write(100)
            await served.checkpointer.take()
        served.opened.log.remove_before(150)
        (path,) = (tmp_path / "actions").glob("0000000000-0000000016-*.run")
        whole = path.read_bytes()
        path.unlink()
        await check_known(served, range(1, 20))
        served.sealer.wanted(path.name)
        served.sealer.wanted("0000000000-0000000001-0123456789abcdef.run")
        await trio.testing.wait_all_tasks_blocked()
        assert path.read_bytes() == whole
        path.unlink()
        await served.write(1)
        await served.checkpointer.take()
        assert path.read_bytes() == whole
        assert [type(each) for each in served.told.faults] == [RunDamaged, Mended] * 2
        await check_known(served, range(1, 402))


async def test_one_damaged_and_one_missing_file_are_both_made_anew(tmp_path: Path) -> None:
    """The missing one does not stand in the way of the damaged one."""
    async with serving_sealed(tmp_path) as served:
        first, second = sorted((tmp_path / "actions").glob("*.run"))
        whole = spoil(first), second.read_bytes()
        second.unlink()
        with pytest.raises(ActionsUnreadable):
            await submit(served, action(1))
        await trio.testing.wait_all_tasks_blocked()
        assert first.read_bytes() == whole[0]
        await served.write(1)
        await served.checkpointer.take()
        assert second.read_bytes() == whole[1]
        await check_known(served, range(1, 102))


async def test_files_of_other_names_are_left_alone(tmp_path: Path) -> None:
    """An operator's copy beside a file stays; an unfinished file of ours goes."""
    async with serving_sealed(tmp_path) as served:
        (path,) = (tmp_path / "actions").glob("0000000000-*.run")
        others = [path.with_name(f"{path.name}.bak"), path.with_name("README.txt"), path.with_name("x.run")]
        ours = path.with_name("0000000000-0000000009-0123456789abcdef.run.tmp")
        for each in (*others, ours):
            each.write_bytes(b"mine")
        await served.write(1)
        await served.checkpointer.take()
        assert [each.exists() for each in (*others, ours)] == [True, True, True, False]
