"""The `parley` command line. The commands of the mesh are here; those of its users come from `client/`.

Imports stay inside the commands: `parley token` must not wait for what only `parley up` needs.
"""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from stack.mesh import PROJECT, SERVICES, EdgePortTaken, Options, default_data_dir, read_object

app = typer.Typer(
    help="Parley: an AI assistant that answers from your documents.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console()
errors = Console(stderr=True)

DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the mesh. Default: $PARLEY_DATA_DIR, else .parley beside the code.",
        file_okay=False,
        readable=False,
    ),
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Plaintext port of the edge; 0 picks a free one.")]
TlsPort = Annotated[int, typer.Option(min=0, max=65535, help="TLS port of the edge; 0 picks a free one.")]


@app.command()
def up(
    detach: Annotated[bool, typer.Option("--detach", help="Run in the background; return when it is ready.")] = False,
    data_dir: DataDir = None,
    port: Port = 8080,
    tls_port: TlsPort = 8443,
    replicas: Annotated[str, typer.Option(help="Processes per service: chat=2,session=2.")] = "",
    chat_models: Annotated[
        str, typer.Option(help="Models that chat offers, the default one first: chat,echo.")
    ] = "chat",
    embedding_models: Annotated[
        str, typer.Option(help="Models of indexes; the first index is made with the first one.")
    ] = "embedding",
    rerank_model: Annotated[
        Path | None, typer.Option(help="Folder of a Triton model that orders what search finds: models/README.md.")
    ] = None,
) -> None:
    """Start the whole mesh. Ctrl-C stops it and loses nothing."""
    from stack import lock
    from stack import up as upping

    where = _resolved(data_dir)
    if not re.fullmatch(r"[A-Za-z0-9_./@%+=:,-]+", str(where)):
        _refuse(
            f"Cannot start in {where}: Triton takes only a folder of plain ASCII letters and digits, "
            "without a space or a quote. Choose another folder with --data-dir."
        )
    if port == tls_port != 0:
        raise typer.BadParameter(f"{port} is the plaintext port, too", param_hint="--tls-port")
    reranker = _rerank_model(rerank_model)
    options = Options(
        http_port=port,
        https_port=tls_port,
        replicas=_replicas(replicas),
        chat_models=_models(chat_models, "--chat-models"),
        embedding_models=_models(embedding_models, "--embedding-models"),
        rerank_model=reranker,
    )
    arguments = [f"--data-dir={where}", f"--port={port}", f"--tls-port={tls_port}", f"--replicas={replicas}"]
    arguments += [f"--chat-models={chat_models}", f"--embedding-models={embedding_models}"]
    arguments += [f"--rerank-model={reranker}"] if reranker else []
    try:
        if detach:
            status = upping.run_detached(where, options, console, arguments)
        else:
            status = upping.run(where, options, console)
    except lock.AlreadyRunning as running:
        _refuse(
            f"Parley is already running in {where} (pid {running.pid}). "
            "`parley status` shows it, `parley down` stops it."
        )
    except EdgePortTaken as taken:
        _refuse(f"Cannot start: {taken}.")
    except PermissionError as denied:
        _refuse(f"Cannot write {denied.filename}: it belongs to another user. Choose another folder with --data-dir.")
    except OSError as fault:  # no folder, a full or a read-only disk
        _refuse(f"Cannot use {fault.filename or where}: {fault.strerror}. Choose another folder with --data-dir.")
    raise typer.Exit(status)


@app.command()
def down(data_dir: DataDir = None) -> None:
    """Stop the mesh and wait until it is gone."""
    from stack import up as upping

    raise typer.Exit(upping.stop(_resolved(data_dir), console))


@app.command()
def restart(
    parts: Annotated[list[str] | None, typer.Argument(help="Parts, or services for all their replicas.")] = None,
    all_services: Annotated[bool, typer.Option("--all", help="Every service in turn.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Restart parts one after the other; with two replicas of a service its callers notice nothing."""
    from stack import control, view
    from stack.part import StartFailed

    names = [*(parts or ()), *(SERVICES if all_services else ())]
    if not names:
        raise typer.BadParameter("name parts or services, or say --all", param_hint="PARTS")
    try:
        for part, seconds in control.restart(_resolved(data_dir), names):
            console.print(f"{part}: restarted ({seconds:.1f} s)", highlight=False)
    except control.Refused as refused:
        _refuse(f"Cannot restart: {refused}.")
    except StartFailed as failed:
        view.print_failure(console, failed.told())
        raise typer.Exit(1) from None


@app.command()
def status(
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False,
) -> None:
    """Show every part. Exits with 0 only when all are ready."""
    found = _status(_resolved(data_dir))
    if as_json:
        print(json.dumps(found, indent=1))
    elif not found.get("parts") and not found["pid"]:
        console.print(f"No mesh has run in {found['data_dir']}.", highlight=False)
    else:
        from stack import view

        edge = "  ".join(found.get("edge", {}).values())
        total = sum(part.get("pss_bytes", 0) for part in found["parts"].values()) + found.get("supervisor_pss_bytes", 0)
        memory = f"   {total / 2**20:.0f} MB in all" if total else ""
        console.print(
            f"[bold]{found['state']}[/]   {edge}   {found['data_dir']}{memory}", highlight=False, soft_wrap=True
        )
        console.print(view.status_table(found, datetime.now(UTC)))
        for name, part in found["parts"].items():
            if part["last_end"]:
                console.print(
                    f"{name} {part['last_end']} (restarts: {part['restarts']})", style="yellow", soft_wrap=True
                )
        if failure := found.get("failure"):
            view.print_failure(console, failure)
    raise typer.Exit(0 if found["state"] == "ready" else 1)


@app.command()
def logs(
    part: Annotated[str | None, typer.Argument(help="A part, or a service for all its processes.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing what is written.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many lines of each log.")] = 20,
    data_dir: DataDir = None,
) -> None:
    """Show the end of the logs."""
    from stack import logs as reading

    try:
        files = reading.select(_resolved(data_dir), part)
    except reading.NoSuchPart as unknown:
        _refuse(f"{unknown}".capitalize() + ".")
    ends: dict[Path, int] = {}
    prefixes = {file: f"{file.stem}: " if len(files) > 1 else "" for file in files}
    for file in files:
        last, ends[file] = reading.tail(file, lines)
        for line in last:
            print(f"{prefixes[file]}{line}")
    if follow:
        try:
            for file, line in reading.follow(ends):
                print(f"{prefixes[file]}{line}", flush=True)
        except KeyboardInterrupt:
            raise typer.Exit(0) from None


@app.command()
def reindex(
    embedding_model: Annotated[
        str, typer.Option(help="The model in Triton to embed with. Default: that of the index that is searched.")
    ] = "",
    extract: Annotated[bool, typer.Option("--extract", help="Read the originals again, and cut them anew.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Show what is searched and what is being built.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="End the rebuild that is running.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Find and mend what does not agree with the record.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Build the search index anew from the record, beside the one that is searched until it is whole."""
    from stack import reindex as work

    try:
        if status:
            work.status(_resolved(data_dir), console)
        elif check:
            work.check(_resolved(data_dir), console)
        elif cancel:
            work.cancel(_resolved(data_dir), console)
        else:
            work.rebuild(_resolved(data_dir), embedding_model, extract, console)
    except work.Refused as refused:
        _refuse(f"{refused}.")
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@app.command()
def doctor(data_dir: DataDir = None, port: Port = 8080, tls_port: TlsPort = 8443) -> None:
    """Check this machine and this folder, and say what to do about each problem."""
    from stack import doctor as examination

    raise typer.Exit(examination.examine(_resolved(data_dir), (port, tls_port), console))


def _status(data_dir: Path) -> dict[str, Any]:
    from stack import lock, memory
    from stack import up as upping

    supervisor = lock.holder(data_dir)
    found: dict[str, Any] = {"state": "starting" if supervisor else "stopped", "parts": {}, "pid": supervisor}
    found |= {"data_dir": str(data_dir), **upping.read_status(data_dir)}
    if supervisor is None:
        # The file may be what a killed supervisor wrote last.
        gone = {"state": "stopped", "pid": None}
        found["parts"] = {name: part | gone for name, part in found["parts"].items()}
        return found | {"state": "failed" if found["state"] == "failed" else "stopped", "pid": None}
    endpoints = read_object(data_dir / "endpoints.json")
    for name, part in found["parts"].items():
        listener = "edge-http" if name == "envoy" else name
        if port := endpoints.get("ports", {}).get(listener):
            part["address"] = f"127.0.0.1:{port}"
        part["pss_bytes"] = memory.pss_bytes(part["pid"]) if part["pid"] else 0
    own = memory.pss_bytes(supervisor) - sum(part["pss_bytes"] for part in found["parts"].values())
    return found | {"edge": endpoints.get("edge", {}), "supervisor_pss_bytes": max(own, 0)}


def _resolved(data_dir: Path | None) -> Path:
    return (data_dir or default_data_dir()).expanduser().resolve()


def _replicas(text: str) -> dict[str, int]:
    counts = {}
    for item in filter(None, text.split(",")):
        service, _, count = item.strip().partition("=")
        if service not in SERVICES or not count.isdecimal() or not 1 <= int(count) <= 16:
            raise typer.BadParameter(
                f"'{item}' is not SERVICE=NUMBER with a number from 1 to 16 and one of {', '.join(SERVICES)}",
                param_hint="--replicas",
            )
        counts[service] = int(count)
    return counts


def _models(text: str, option: str) -> tuple[str, ...]:
    """In the order given, the default one first."""
    offered = {file.parent.name for file in PROJECT.glob("models/*/config.pbtxt")}
    offered -= {"embedding"} if option == "--chat-models" else {"chat", "echo"}
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names or not offered.issuperset(names):
        raise typer.BadParameter(f"'{text}' is not a list of models of {', '.join(sorted(offered))}", param_hint=option)
    return names


def _rerank_model(folder: Path | None) -> Path | None:
    if folder is None:
        return None
    folder = folder.expanduser().resolve()
    if not (folder / "config.pbtxt").is_file():
        raise typer.BadParameter(
            f"'{folder}' has no config.pbtxt, so it is no Triton model", param_hint="--rerank-model"
        )
    return folder


def _refuse(message: str) -> None:
    errors.print(message, style="red", highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def main() -> None:
    from stack import client

    client.register(app)
    app()


if __name__ == "__main__":
    main()
