"""The supervisor with small real programs: what starts when, what follows when one dies, that nothing stays behind."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from stack import lock
from stack.part import Part, StartFailed
from stack.process import end_leftovers, leftovers
from stack.supervisor import Supervisor

# Writes down its start and its stop; `sleep` is a grandchild, as a real server has helpers.
SERVER = """
echo "start $NAME" >> journal
trap 'echo "stop $NAME" >> journal; exit 0' TERM
touch "$NAME.up"
sleep 300 & wait
"""


def helper(folder: Path, name: str, script: str = SERVER, *, waits_for: str = "", **fields: object) -> Part:
    """A part that answers once the file NAME.up (or the one of `waits_for`) is there."""

    async def ready() -> None:
        assert (folder / f"{waits_for or name}.up").exists()

    async def prepare() -> None:
        (folder / f"{name}.up").unlink(missing_ok=True)

    defaults = {"prepare": prepare, "ready": ready, "stop_timeout_s": 2, "start_timeout_s": 5, "advice": f"mend {name}"}
    return Part(name=name, command=("sh", "-c", script), env={"NAME": name}, **{**defaults, **fields})


@contextlib.asynccontextmanager
async def supervised(folder: Path, *parts: Part, ask_interval_s: float = 60) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(parts, folder, first_pause_s=0.05, ask_interval_s=ask_interval_s)
    await supervisor.start()
    try:
        yield supervisor
    finally:
        await supervisor.stop()


def journal(folder: Path) -> list[str]:
    return (folder / "journal").read_text().splitlines()


def status(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text())


async def until(condition, timeout_s: float = 5) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_part_starts_only_after_what_it_needs_and_stops_before_it(tmp_path):
    store, service = helper(tmp_path, "store"), helper(tmp_path, "service", needs=("store",))
    edge = helper(tmp_path, "edge", needs=("service", "store"))
    async with supervised(tmp_path, edge, service, store):
        assert status(tmp_path)["state"] == "ready"
    assert journal(tmp_path) == [f"start {n}" for n in ("store", "service", "edge")] + [
        f"stop {n}" for n in ("edge", "service", "store")
    ]
    assert status(tmp_path)["state"] == "stopped"


async def test_parts_without_needs_start_together(tmp_path):
    # Each answers only when the other has started too.
    async with supervised(tmp_path, helper(tmp_path, "a", waits_for="b"), helper(tmp_path, "b", waits_for="a")):
        pass


async def test_after_ready_ends_before_a_user_of_the_part_starts(tmp_path):
    async def make_roles() -> None:
        await asyncio.sleep(0.1)
        with (tmp_path / "journal").open("a") as file:
            file.write("roles\n")

    store = helper(tmp_path, "store", after_ready=make_roles)
    async with supervised(tmp_path, store, helper(tmp_path, "service", needs=("store",))):
        assert journal(tmp_path) == ["start store", "roles", "start service"]


async def test_killed_part_is_started_again_and_shown(tmp_path):
    async with supervised(tmp_path, helper(tmp_path, "store")):
        first = status(tmp_path)["parts"]["store"]["pid"]
        children = psutil.Process(first).children(recursive=True)
        os.kill(first, signal.SIGKILL)
        await until(
            lambda: status(tmp_path)["parts"]["store"]["restarts"] == 1 and status(tmp_path)["state"] == "ready"
        )
        part = status(tmp_path)["parts"]["store"]
        assert part["pid"] != first
        assert part["last_end"] == "was ended by SIGKILL"
        assert children
        assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


async def test_part_that_hangs_is_shown_until_it_answers_again(tmp_path):
    async with supervised(tmp_path, helper(tmp_path, "store"), ask_interval_s=0.01):
        (tmp_path / "store.up").unlink()
        await until(lambda: status(tmp_path)["parts"]["store"]["state"] == "not answering")
        assert status(tmp_path)["state"] == "degraded"
        (tmp_path / "store.up").touch()
        await until(lambda: status(tmp_path)["state"] == "ready")
        assert status(tmp_path)["parts"]["store"]["restarts"] == 0


async def test_pause_before_a_restart_doubles_while_the_part_keeps_dying(tmp_path):
    script = 'date +%s%N >> times; touch "$NAME.up"; sleep 0.05; exit 3'
    async with supervised(tmp_path, helper(tmp_path, "flaky", script)):
        await until(lambda: len((tmp_path / "times").read_text().splitlines()) >= 5)
        assert status(tmp_path)["state"] in ("degraded", "ready")
        assert status(tmp_path)["parts"]["flaky"]["last_end"] == "ended with status 3"
    times = [int(line) / 1e9 for line in (tmp_path / "times").read_text().splitlines()]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses[3] > 0.4 > pauses[0]


async def test_failed_start_is_named_with_its_log_and_advice_and_stops_the_rest(tmp_path):
    broken = helper(tmp_path, "broken", "echo first; echo no such volume >&2; exit 7", needs=("store",))
    with pytest.raises(StartFailed) as caught:
        async with supervised(tmp_path, helper(tmp_path, "store"), broken):
            pytest.fail("started")
    assert caught.value.part == "broken"
    assert caught.value.log_tail == "first\nno such volume"
    assert caught.value.advice == "mend broken"
    assert journal(tmp_path) == ["start store", "stop store"]
    written = status(tmp_path)
    assert written["state"] == "failed"
    assert written["failure"]["reason"] == "ended with status 7"
    assert written["parts"]["broken"]["state"] == "failed"


async def test_log_of_an_earlier_run_is_not_shown_as_the_reason(tmp_path):
    for words in ("yesterday", "today"):
        with pytest.raises(StartFailed) as caught:
            async with supervised(tmp_path, helper(tmp_path, "broken", f"echo {words}; exit 1")):
                pytest.fail("started")
    assert caught.value.log_tail == "today"


async def test_part_that_never_answers_fails_with_the_last_answer(tmp_path):
    async def refuse() -> None:
        raise ConnectionError("still loading")

    silent = helper(tmp_path, "silent", start_timeout_s=0.3, ready=refuse)
    with pytest.raises(StartFailed, match=r"did not answer within 0.3 s \(ConnectionError: still loading\)"):
        async with supervised(tmp_path, silent):
            pytest.fail("started")
    assert not list(leftovers(tmp_path))


async def test_failure_of_prepare_names_the_part(tmp_path):
    async def prepare() -> None:
        raise RuntimeError("initdb ended with status 1")

    with pytest.raises(StartFailed, match="store: initdb ended with status 1"):
        async with supervised(tmp_path, helper(tmp_path, "store", prepare=prepare)):
            pytest.fail("started")


async def test_part_that_ignores_the_stop_signal_is_killed_with_its_children(tmp_path):
    stubborn = 'trap "" TERM; touch "$NAME.up"; sleep 300 & while true; do wait; done'
    async with supervised(tmp_path, helper(tmp_path, "stubborn", stubborn, stop_timeout_s=0.2)):
        assert list(leftovers(tmp_path))
    assert not list(leftovers(tmp_path))


async def test_caller_environment_is_not_passed_on(tmp_path, monkeypatch):
    monkeypatch.setenv("PARLEY_UNRELATED_SECRET", "s")
    async with supervised(tmp_path, helper(tmp_path, "a", f"env > seen; {SERVER}")):
        assert "PARLEY_UNRELATED_SECRET" not in (tmp_path / "seen").read_text()


@pytest.fixture
def killed_supervisor(tmp_path) -> Iterator[list[psutil.Process]]:
    """What a supervisor was running when it was killed with SIGKILL; it cannot clean up then."""
    program = f"""
        import asyncio, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from stack import lock
        from test_supervisor import helper, Supervisor
        folder = Path({str(tmp_path)!r})
        async def main():
            await Supervisor([helper(folder, "a"), helper(folder, "b", needs=("a",))], folder).start()
            print("up", flush=True)
            await asyncio.sleep(300)
        with lock.hold(folder):
            asyncio.run(main())
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "up\n"
    running = psutil.Process(process.pid).children(recursive=True)
    assert lock.holder(tmp_path) == process.pid
    process.kill()
    process.wait()
    process.stdout.close()
    yield running
    for left in running:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()


def test_parts_die_with_a_killed_supervisor(tmp_path, killed_supervisor):
    parts = [process for process in killed_supervisor if process.pid in _pids(tmp_path)]
    assert len(parts) == 2
    _, alive = psutil.wait_procs(parts, timeout=2)
    assert not alive


def test_what_parts_had_started_is_found_and_ended_by_the_next_start(tmp_path, killed_supervisor):
    psutil.wait_procs([process for process in killed_supervisor if process.pid in _pids(tmp_path)], timeout=2)
    grandchildren = {process.pid for process in killed_supervisor if process.is_running()}
    assert grandchildren == set(end_leftovers(tmp_path))
    assert not list(leftovers(tmp_path))


def test_lock_of_a_killed_supervisor_is_free(tmp_path, killed_supervisor):
    assert lock.holder(tmp_path) is None
    with lock.hold(tmp_path):
        assert lock.holder(tmp_path) == os.getpid()
        with pytest.raises(lock.AlreadyRunning), lock.hold(tmp_path):
            pytest.fail("held twice")
    assert lock.holder(tmp_path) is None


def _pids(folder: Path) -> set[int]:
    return {part["pid"] for part in status(folder)["parts"].values()}


async def test_unknown_need_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match="service needs parts that are not here: store"):
        Supervisor([helper(tmp_path, "service", needs=("store",))], tmp_path)


async def test_stop_during_start_leaves_nothing(tmp_path):
    supervisor = Supervisor([helper(tmp_path, "slow", waits_for="never")], tmp_path)
    start = asyncio.create_task(supervisor.start())
    await until(lambda: (tmp_path / "slow.up").exists())
    start.cancel()
    await asyncio.wait({start})
    began = time.monotonic()
    await supervisor.stop()
    assert time.monotonic() - began < 1
    assert not list(leftovers(tmp_path))


async def restarted(supervisor: Supervisor, *names: str) -> list[str]:
    return [name async for name, _ in supervisor.restart(names)]


async def test_planned_restarts_go_one_after_the_other_and_count_as_no_death(tmp_path):
    found = []

    async def noticed() -> None:
        found.append(journal(tmp_path)[-1])
        assert len(found) > 1  # asked again

    parts = helper(tmp_path, "a", noticed=noticed), helper(tmp_path, "b")
    async with supervised(tmp_path, *parts) as supervisor:
        before = _pids(tmp_path)
        assert await restarted(supervisor, "a", "b") == ["a", "b"]
        assert found == ["start a", "start a"]
        assert sorted(journal(tmp_path)[:2]) == ["start a", "start b"]
        assert journal(tmp_path)[2:] == ["stop a", "start a", "stop b", "start b"]
        assert not before & _pids(tmp_path)
        assert status(tmp_path)["state"] == "ready"
        for part in status(tmp_path)["parts"].values():
            assert (part["restarts"], part["planned_restarts"], part["last_end"]) == (0, 1, None)


async def test_part_that_does_not_come_back_ends_the_roll_and_is_tried_again(tmp_path):
    broken = tmp_path / "broken"
    script = f"test ! -e {broken} || exit 9; {SERVER}"
    async with supervised(tmp_path, helper(tmp_path, "a", script), helper(tmp_path, "b")) as supervisor:
        broken.touch()
        with pytest.raises(StartFailed, match="a: ended with status 9"):
            await restarted(supervisor, "a", "b")
        assert status(tmp_path)["parts"]["b"]["planned_restarts"] == 0
        broken.unlink()
        await until(lambda: status(tmp_path)["state"] == "ready")
        part = status(tmp_path)["parts"]["a"]
        assert (part["planned_restarts"], part["last_end"]) == (1, "a: ended with status 9")
        assert part["restarts"] >= 1


async def test_planned_restart_ends_the_pause_after_a_death(tmp_path):
    supervisor = Supervisor([helper(tmp_path, "a")], tmp_path, first_pause_s=60)
    await supervisor.start()
    try:
        os.kill(status(tmp_path)["parts"]["a"]["pid"], signal.SIGKILL)
        await until(lambda: status(tmp_path)["parts"]["a"]["state"] == "waiting to restart")
        async with asyncio.timeout(5):
            assert await restarted(supervisor, "a") == ["a"]
        assert status(tmp_path)["state"] == "ready"
    finally:
        await supervisor.stop()
