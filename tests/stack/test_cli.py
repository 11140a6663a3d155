"""The mesh commands of `parley` where no mesh is needed: what they refuse, and how they say it."""

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from stack import lock, programs
from stack.mesh import is_free, pick_ports


def parley(*arguments: str, data_dir: Path | None = None) -> subprocess.CompletedProcess[str]:
    folder = [f"--data-dir={data_dir}"] if data_dir else []
    command = [programs.script("python"), "-m", "stack.cli", *arguments, *folder]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}, timeout=30)


@pytest.mark.parametrize("detach", [[], ["--detach"]], ids=["foreground", "detached"])
@pytest.mark.parametrize("option", ["--port", "--tls-port"])
def test_busy_edge_port_is_named_before_anything_starts(tmp_path, option, detach):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ran = parley("up", *detach, "--port=0", "--tls-port=0", f"{option}={port}", data_dir=tmp_path)
    assert ran.returncode == 1
    assert f"port {port} is in use by another program; choose another one with {option}" in ran.stderr
    assert not list(tmp_path.glob("*/*"))


@pytest.mark.parametrize("detach", [[], ["--detach"]], ids=["foreground", "detached"])
def test_second_up_says_that_it_is_running_and_fails(tmp_path, detach):
    with lock.hold(tmp_path):
        ran = parley("up", *detach, "--port=0", "--tls-port=0", data_dir=tmp_path)
    assert ran.returncode == 1
    assert f"already running in {tmp_path} (pid {os.getpid()})" in ran.stderr


@pytest.mark.parametrize("replicas", ["chat", "chat=0", "chat=x", "chat=99", "postgres=2"])
def test_replicas_that_make_no_sense_are_refused(tmp_path, replicas):
    ran = parley("up", f"--replicas={replicas}", data_dir=tmp_path)
    assert ran.returncode == 2
    assert f"'{replicas}' is not SERVICE=NUMBER" in ran.stderr


@pytest.mark.parametrize("models", ["", ",", "nope", "chat,embedding"])
def test_models_that_no_chat_can_use_are_refused(tmp_path, models):
    ran = parley("up", f"--chat-models={models}", data_dir=tmp_path)
    assert ran.returncode == 2
    assert f"'{models}' is not a list of models of chat, echo" in ran.stderr


def test_a_folder_without_a_model_can_not_rerank(tmp_path):
    ran = parley("up", f"--rerank-model={tmp_path}", data_dir=tmp_path / "mesh")
    assert ran.returncode == 2
    assert "has no config.pbtxt" in ran.stderr


def test_both_ports_of_the_edge_can_not_be_one(tmp_path):
    ran = parley("up", "--port=18080", "--tls-port=18080", data_dir=tmp_path)
    assert ran.returncode == 2
    assert "18080 is the plaintext port, too" in ran.stderr


@pytest.mark.parametrize("detach", [[], ["--detach"]], ids=["foreground", "detached"])
@pytest.mark.parametrize("folder", ["file/mesh", "/proc/mesh"])
def test_a_folder_that_can_not_be_is_named(tmp_path, folder, detach):
    (tmp_path / "file").touch()
    ran = parley("up", *detach, "--port=0", "--tls-port=0", data_dir=tmp_path / folder)
    assert ran.returncode == 1
    assert ran.stderr.startswith("Cannot use ")
    assert str(tmp_path / folder) in ran.stderr
    assert "Choose another folder with --data-dir." in ran.stderr


@pytest.mark.parametrize("folder", ["my mesh", "it's", "$HOME", "für"])
def test_a_folder_that_triton_would_misread_is_refused(tmp_path, folder):
    ran = parley("up", data_dir=tmp_path / folder)
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"Cannot start in {tmp_path / folder}: ")


@pytest.mark.parametrize("damage", ["", "[]", "\xff"])
def test_damaged_files_of_a_running_mesh_stop_no_command(tmp_path, damage):
    for name in ("status.json", "endpoints.json", "client-session.json"):
        (tmp_path / name).write_bytes(damage.encode("latin-1"))
    with lock.hold(tmp_path):
        status = parley("status", "--json", data_dir=tmp_path)
        assert (status.returncode, json.loads(status.stdout)["pid"]) == (1, os.getpid())
        assert parley("status", data_dir=tmp_path).stdout.startswith("starting")
        token = parley("token", data_dir=tmp_path)
    assert token.returncode == 1
    assert f"{tmp_path / 'endpoints.json'} is damaged" in token.stderr


def test_a_damaged_session_is_no_session(tmp_path):
    (tmp_path / "endpoints.json").write_text('{"edge": {"http": "http://127.0.0.1:9"}}')
    for damage in ("{", "[]", '{"access_token": "x"}'):
        (tmp_path / "client-session.json").write_text(damage)
        ran = parley("token", data_dir=tmp_path)
        assert (ran.returncode, ran.stderr.strip()) == (1, "Sign in first: `parley login`.")


def test_status_and_down_without_a_mesh(tmp_path):
    status = parley("status", "--json", data_dir=tmp_path)
    assert (status.returncode, json.loads(status.stdout)["state"]) == (1, "stopped")
    down = parley("down", data_dir=tmp_path)
    assert (down.returncode, down.stdout) == (0, f"No mesh is running in {tmp_path}.\n")


def test_restart_without_a_mesh_or_a_name_is_refused(tmp_path):
    alone = parley("restart", "chat", data_dir=tmp_path)
    assert (alone.returncode, alone.stderr) == (1, f"Cannot restart: no mesh is ready in {tmp_path}.\n")
    nothing = parley("restart", data_dir=tmp_path)
    assert nothing.returncode == 2
    assert "name parts or services, or say --all" in nothing.stderr


def test_status_does_not_believe_a_killed_supervisor(tmp_path):
    part = {"state": "ready", "pid": 1, "restarts": 0, "last_end": None, "since": "2026-01-01T00:00:00+00:00"}
    (tmp_path / "status.json").write_text(json.dumps({"state": "ready", "pid": 1, "parts": {"nats": part}}))
    found = json.loads(parley("status", "--json", data_dir=tmp_path).stdout)
    assert (found["state"], found["parts"]["nats"]["state"]) == ("stopped", "stopped")


def test_logs_show_one_part_all_replicas_or_everything(tmp_path):
    (tmp_path / "logs").mkdir()
    for part in ("chat-1", "chat-2", "nats"):
        (tmp_path / "logs" / f"{part}.log").write_text(f"old\nfrom {part}\n")
    assert parley("logs", "nats", data_dir=tmp_path).stdout == "old\nfrom nats\n"
    assert parley("logs", "chat", "-n1", data_dir=tmp_path).stdout == "chat-1: from chat-1\nchat-2: from chat-2\n"
    assert len(parley("logs", data_dir=tmp_path).stdout.splitlines()) == 6
    unknown = parley("logs", "chta", data_dir=tmp_path)
    assert unknown.returncode == 1
    assert "There is no log of 'chta'; there are: chat-1, chat-2, nats." in unknown.stderr


def test_doctor_names_a_busy_port_and_what_to_do(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ran = parley("doctor", f"--port={port}", "--tls-port=0", data_dir=tmp_path)
    assert ran.returncode == 1
    assert f"✗ port {port} of the edge is free" in ran.stdout
    assert "choose another one with --port" in ran.stdout


def test_ports_are_kept_while_they_are_free_and_never_taken_from_outgoing_connections():
    names = ["a", "b", "c"]
    first = pick_ports(names)
    assert pick_ports(names, first) == first
    with socket.create_server(("127.0.0.1", first["a"])):
        second = pick_ports(names, first)
    assert second["a"] != first["a"]
    assert (second["b"], second["c"]) == (first["b"], first["c"])
    outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(is_free(port) and port < outgoing for port in second.values())
