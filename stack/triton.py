"""NVIDIA Triton: serves the chat and the embedding model, to chat and knowledge alone.

It runs in an environment of its own (models/requirements.lock), because its Python backend needs numpy 1. The
environment comes first on PATH: that is how the Python inside the backend finds its packages; it ignores PYTHONPATH.

Triton has no list of callers. Its trust bundle therefore holds the certificates of the callers themselves instead of
the authority's: another certificate of the same authority fails the handshake.
"""

import asyncio
import contextlib
import functools
import hashlib
import os
import secrets
import shutil
import signal
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stack.mesh import PROJECT, Mesh
from stack.part import Part, run_to_end

MODELS = PROJECT / "models"
ENVIRONMENT = PROJECT / ".venv-models"
ALLOW_LIST = PROJECT / "services" / "shared" / "serving" / "allow_list.toml"
SERVICE = "inference.GRPCInferenceService"
CLOSED_APIS = ("model-repository", "shared-memory", "trace", "logging")
"""They load code, map memory and change the server: nobody's business here."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # where the Python backend makes its regions
CLEAN_STOP_S = 3
"""Within which the server ends after the processes of its models, when it was told to stop."""
DESCRIBE_PYTHON = """\
import sys, sysconfig, find_libpython
print("%d.%d" % sys.version_info[:2], sysconfig.get_path("purelib"), find_libpython.find_libpython() or "", sep="\\n")
"""


def part(mesh: Mesh) -> Part:
    folder = mesh.directory("triton")
    return Part(
        name="triton",
        command=(str(folder / "tritonserver"), *_options(mesh, folder)),
        env={
            "PATH": os.pathsep.join((str(ENVIRONMENT / "bin"), os.environ.get("PATH", os.defpath))),
            "LD_LIBRARY_PATH": str(folder / "libraries"),
            # The one TLS 1.2 suite that nobody can agree on, which leaves TLS 1.3; see services/shared/serving/tls.py.
            "GRPC_SSL_CIPHER_SUITES": "ECDHE-PSK-AES128-CBC-SHA",
            "MALLOC_ARENA_MAX": "2",
        },
        prepare=functools.partial(_prepare, mesh, folder),
        ready=functools.partial(_answer, mesh),
        after_ready=functools.partial(_end_with_its_models, folder / "tritonserver"),
        start_timeout_s=60,
        advice="Read the log lines above: Triton names the model that did not load, and why.",
    )


def callers() -> list[str]:
    """Names of the services whose certificates Triton accepts."""
    return list(tomllib.loads(ALLOW_LIST.read_text())[SERVICE])


def _options(mesh: Mesh, folder: Path) -> Iterator[str]:
    yield f"--model-repository={MODELS}"
    yield "--model-control-mode=explicit"
    yield "--disable-auto-complete-config"
    for model in dict.fromkeys((*mesh.options.embedding_models, *mesh.options.chat_models)):
        yield f"--load-model={model}"
    if reranker := mesh.options.rerank_model:
        yield f"--model-repository={reranker.parent}"
        yield f"--load-model={reranker.name}"
    yield f"--backend-directory={folder / 'backends'}"
    yield f"--backend-config=python,shm-region-prefix-name={_shared_memory_prefix(folder)}"
    # Threads of a model that pass its responses on. Of the usual 32, each response wakes the one that slept longest.
    yield "--backend-config=python,thread-pool-size=2"
    yield "--allow-http=false"
    yield "--grpc-address=127.0.0.1"
    yield f"--grpc-port={mesh.ports['triton']}"
    yield "--grpc-use-ssl-mutual=true"
    yield f"--grpc-server-cert={mesh.cert_file('triton')}"
    yield f"--grpc-server-key={mesh.key_file('triton')}"
    yield f"--grpc-root-cert={folder / 'callers.pem'}"
    # The key is thrown away: these calls need one, and there is none.
    yield f"--grpc-restricted-protocol={','.join(CLOSED_APIS)}:closed={secrets.token_urlsafe(32)}"
    yield "--metrics-address=127.0.0.1"
    yield f"--metrics-port={mesh.ports['triton-metrics']}"
    yield "--allow-cpu-metrics=false"
    yield "--allow-gpu-metrics=false"
    yield "--exit-timeout-secs=5"
    yield from tracing_options(os.environ)


def tracing_options(environment: Mapping[str, str]) -> Iterator[str]:
    """Triton speaks OTLP over HTTP only. Where the endpoint is a gRPC one, collectors have the other on port 4318."""
    endpoint = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not endpoint:
        return
    over_http = environment.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc").startswith("http")
    url = endpoint.rstrip("/") if over_http else f"http://{urlsplit(endpoint).hostname}:4318"
    yield "--trace-config=mode=opentelemetry"
    yield "--trace-config=level=TIMESTAMPS"
    yield "--trace-config=rate=1"
    yield f"--trace-config=opentelemetry,url={url}/v1/traces"
    yield "--trace-config=opentelemetry,resource=service.name=triton"


async def _prepare(mesh: Mesh, folder: Path) -> None:
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        raise FileNotFoundError("the environment .venv-models is not installed; run `make up`, which installs it")
    description = await run_to_end(str(python), "-c", DESCRIBE_PYTHON)
    _lay_out(folder, *description.split("\n")[:3])
    (folder / "callers.pem").write_bytes(b"".join(mesh.cert_file(name).read_bytes() for name in callers()))
    _remove_shared_memory(folder)


def _lay_out(folder: Path, version: str, packages: str, libpython: str) -> None:
    """The server as it expects itself: links into the installed packages, made anew because those may have moved."""
    server = Path(packages) / "pytriton" / "tritonserver"
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        raise RuntimeError(f"Triton has no backend for Python {version}; make .venv-models with Python 3.11 or 3.12")
    libraries = Path(packages) / "nvidia_pytriton.libs"
    links = {"tritonserver": server / "bin" / "tritonserver", f"backends/python/{stub.name}": stub}
    links |= {f"backends/python/{file.name}": file for file in (server / "backends" / "python").iterdir()}
    links |= {f"libraries/{file.name}": file for file in libraries.iterdir()}
    if libpython:
        links[f"libraries/libpython{version}.so.1.0"] = Path(libpython).resolve()
    elif not any(libraries.glob(f"libpython3-*.{version.partition('.')[2]}.so.1.0")):  # the package carries its newest
        raise RuntimeError(f"the shared library of Python {version} is missing; {_libpython_advice(version)}")
    for name in ("backends", "libraries"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name, target in links.items():
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def _libpython_advice(version: str) -> str:
    if shutil.which("apt-get"):
        return f"run `sudo apt-get install libpython{version}`"
    if shutil.which("dnf"):
        return f"run `sudo dnf install python{version}-libs`"
    return f"install what holds libpython{version}.so.1.0, or build that Python with --enable-shared"


def _shared_memory_prefix(folder: Path) -> str:
    """Of this mesh alone, so that what a killed server left behind can be told from what others use."""
    return f"parley-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}-"


def _remove_shared_memory(folder: Path) -> None:
    """What a server that was killed left behind."""
    for region in SHARED_MEMORY.glob(f"{_shared_memory_prefix(folder)}*"):
        region.unlink(missing_ok=True)


async def _answer(mesh: Mesh) -> None:
    """Triton is SERVING when all its models are. It knows no supervisor, so its first caller seems to ask."""
    caller = callers()[0]
    credentials = grpc.ssl_channel_credentials(
        mesh.ca_file.read_bytes(), mesh.key_file(caller).read_bytes(), mesh.cert_file(caller).read_bytes()
    )
    options = [("grpc.ssl_target_name_override", "triton")]
    async with grpc.aio.secure_channel(mesh.address("triton"), credentials, options) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=3)
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise RuntimeError("a model is not ready")


async def _end_with_its_models(program: Path) -> None:
    """Triton goes on, and calls itself ready, when the process of a model died. Ended, it is started again with all."""
    running = psutil.process_iter(["cmdline"])
    server = next(process for process in running if (process.info["cmdline"] or [""])[0] == str(program))
    loop = asyncio.get_running_loop()
    for model in server.children():
        server_fd, model_fd = os.pidfd_open(server.pid), os.pidfd_open(model.pid)
        loop.add_reader(model_fd, _model_ended, loop, server_fd, model_fd)


def _model_ended(loop: asyncio.AbstractEventLoop, server_fd: int, model_fd: int) -> None:
    loop.remove_reader(model_fd)
    os.close(model_fd)
    loop.call_later(CLEAN_STOP_S, _end_server, server_fd)


def _end_server(server_fd: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(server_fd, signal.SIGKILL)
    os.close(server_fd)
