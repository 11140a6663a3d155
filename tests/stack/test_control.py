"""The socket by which a command reaches the supervisor."""

import asyncio
import os
import stat
from pathlib import Path

import pytest

from stack import control
from stack.part import StartFailed
from stack.supervisor import Supervisor
from tests.stack.test_supervisor import SERVER, helper, journal, status, supervised, until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data directory with a path that no socket may have."""
    found = tmp_path / ("long" * 30)
    found.mkdir()
    return found


async def ask(folder: Path, *names: str) -> list[str]:
    """The parts that were restarted."""
    return await asyncio.to_thread(lambda: [part for part, _ in control.restart(folder, names)])


async def test_service_name_means_its_replicas_in_turn(folder: Path) -> None:
    parts = [helper(folder, name) for name in ("chat-1", "chat-2", "nats")]
    async with supervised(folder, *parts) as supervisor, control.listening(supervisor):
        assert await ask(folder, "chat") == ["chat-1", "chat-2"]
        assert await ask(folder, "nats", "chat-2") == ["nats", "chat-2"]
        counts = {name: part["planned_restarts"] for name, part in status(folder)["parts"].items()}
    assert counts == {"chat-1": 1, "chat-2": 2, "nats": 1}


async def test_unknown_part_is_refused_before_anything_stops(folder: Path) -> None:
    async with supervised(folder, helper(folder, "nats")) as supervisor, control.listening(supervisor):
        with pytest.raises(control.Refused, match="no part or service 'chat'"):
            await ask(folder, "nats", "chat")
        assert journal(folder) == ["start nats"]


async def test_failure_comes_with_its_reason_and_advice(folder: Path) -> None:
    script = f"test ! -e again || {{ echo no such volume; exit 9; }}; touch again; {SERVER}"
    async with supervised(folder, helper(folder, "nats", script)) as supervisor, control.listening(supervisor):
        with pytest.raises(StartFailed) as failed:
            await ask(folder, "nats")
    assert failed.value.told() == {
        "part": "nats",
        "reason": "ended with status 9",
        "advice": "mend nats",
        "log_tail": "no such volume",
    }


async def test_only_the_owner_can_reach_the_supervisor_and_only_while_it_runs(folder: Path) -> None:
    socket = folder / control.NAME
    async with supervised(folder, helper(folder, "nats")) as supervisor, control.listening(supervisor):
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
        assert socket.stat().st_uid == os.geteuid()
    assert not socket.exists()
    with pytest.raises(control.Refused, match="no mesh is ready in"):
        await ask(folder, "nats")


async def test_stop_during_a_restart_ends_it(folder: Path) -> None:
    slow = f"test ! -e again || exec sleep 300; touch again; {SERVER}"
    gone = helper(folder, "nats", slow, start_timeout_s=60)
    supervisor = Supervisor([gone], folder)
    await supervisor.start()
    async with control.listening(supervisor):
        asked = asyncio.create_task(ask(folder, "nats"))
        await until(lambda: status(folder)["parts"]["nats"]["state"] == "restarting")
    assert await asked == []
    await supervisor.stop()
