"""`opsapi demo`: the playground and the service as two processes, with demo workspaces, accounts and traffic."""

import asyncio
import base64
import errno
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from opsapi.cli.context import operator
from opsapi.cli.output import err, fail, out, progress
from opsapi.cli.processes import Child, ChildFailed
from opsapi.kit.caller import AccountKind
from opsapi.settings.model import Settings
from opsapi.settings.source import load
from opsapi.workspaces.access import ACTING, Feature, manifest

WORKSPACES = (
    {"id": "ws-demo", "name": "Demo Shop", "namespaces": ["shop", "platform"]},
    {"id": "ws-staging", "name": "Staging", "namespaces": ["staging"]},
)
"""Both live in the playground's one cluster, each limited to its namespaces, as tenants are."""

READ_SECONDS = 60
POLL_SECONDS = 0.5

ACCOUNTS: dict[str, tuple[AccountKind, tuple[str, ...]]] = {
    "admin": (
        AccountKind.PERSON,
        (
            "system:read", "workspaces:admin", "workspace:admin", "application:write", "incident:write", "logs:write",
            "audit:read", "accounts:admin", "webhooks:admin",
        ),
    ),
    "agent": (
        AccountKind.AGENT,
        ("system:read", "workspace:admin", "application:write", "incident:write", "logs:read"),
    ),
    "reader": (AccountKind.SERVICE, ("system:read", "workspace:read", "application:read")),
    "approver": (
        AccountKind.PERSON,
        ("system:read", "workspace:write", "application:read", "incident:write", "approvals:write"),
    ),
}  # fmt: skip


@dataclass
class _Stop:
    """Set by SIGINT and SIGTERM; a second signal does not hurry anything."""

    asked: bool = False

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._set)

    def _set(self, *_: object) -> None:
        self.asked = True

    def __call__(self) -> bool:
        return self.asked


def demo(
    port: Annotated[
        int, typer.Option(help="The service's port on 127.0.0.1; 0 takes a free one.", min=0, max=65535)
    ] = 8080,
    seed: Annotated[int, typer.Option(help="The same seed makes the same world.")] = 7,
    speed: Annotated[float, typer.Option(help="How fast the playground's clock runs; 1 is wall time.", min=0.01)] = 1.0,
    ready_file: Annotated[
        Path | None, typer.Option(help="Written as JSON once everything answers: URL, kubeconfig, pids, accounts.")
    ] = None,
) -> None:
    """Start the playground and the service with demo workspaces; Ctrl-C ends both and leaves nothing behind.

    The workspaces hold healthy and sick workloads under traffic and are in `act` mode. Everything lives in a private
    temporary folder that is removed at the end.
    """
    stop = _Stop()
    stop.install()
    _look_ahead(port, ready_file)
    folder = Path(tempfile.mkdtemp(prefix="opsapi-demo-"))
    children: list[Child] = []
    try:
        _run(folder, children, stop, port=port, seed=seed, speed=speed, ready_file=ready_file)
    except ChildFailed as failure:
        if stop():
            return
        tail = failure.log.read_text(errors="replace").splitlines()[-15:] if failure.log.exists() else []
        err.print("\n".join(tail), markup=False)
        fail(str(failure), then="the lines above are the end of its log")
    finally:
        for child in reversed(children):
            child.stop()
        shutil.rmtree(folder, ignore_errors=True)
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)
        if stop():
            err.print("stopped; nothing is left running")


def _look_ahead(port: int, ready_file: Path | None) -> None:
    """Says what cannot work before anything starts."""
    if port:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                fail(
                    f"cannot listen on 127.0.0.1:{port} ({error.strerror})",
                    then="end what listens there, or choose another --port; 0 takes a free one",
                )
    if ready_file is not None:
        part = _part_of(ready_file)
        try:
            if ready_file.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            part.touch(mode=0o600)
            part.unlink()
        except OSError as error:
            fail(
                f"cannot write --ready-file {ready_file} ({error.strerror})",
                then="name a file in a folder that exists and that you may write to",
            )


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def _run(
    folder: Path, children: list[Child], stop: _Stop, *, port: int, seed: int, speed: float, ready_file: Path | None
) -> None:
    began = time.monotonic()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPSAPI_")}
    with progress("starting the playground: a small Kubernetes with healthy and sick workloads"):
        cluster = _start_playground(folder, children, stop, seed=seed, speed=speed, env=environment)
    with progress("creating the accounts"):
        config = _write_config(folder, port)
        settings = load(Settings, config, {})
        accounts = asyncio.run(_create_accounts(settings))
    with progress("starting the service and reading the workspaces"):
        service = Child(
            "the service",
            [
                sys.executable, "-m", "opsapi", "serve", "--config", str(config),
                "--ready-file", str(folder / "service.json"),
            ],
            log=folder / "service.log", ready=folder / "service.json", env=environment,
        )  # fmt: skip
        children.append(service)
        url = service.wait_ready(60, stop)["url"]
        _wait_for_answers(url, accounts["admin"], service, stop)
    ready = {
        "url": url,
        "kubeconfig": str(folder / "kubeconfig"),
        "pids": {"demo": os.getpid(), "playground": children[0].pid, "service": service.pid},
        "accounts": accounts,
        "workspaces": [workspace["id"] for workspace in WORKSPACES],
        "playground": {"url": cluster["url"], "logs": str(folder)},
    }
    if ready_file is not None:
        _write_private(ready_file, json.dumps(ready, indent=2) + "\n")
    out.print(introduction(ready, seconds=time.monotonic() - began), markup=False)
    _watch(children, stop)


def _wait_for_answers(url: str, account: dict[str, str], service: Child, stop: _Stop) -> None:
    """Until every workspace has been read and measured once and health says so. Raises ChildFailed."""
    headers = {"Authorization": f"Bearer {account['token']}", "X-Service-Account": account["id"]}
    deadline = time.monotonic() + READ_SECONDS
    waiting: list[tuple[str, Callable[[dict[str, Any]], bool]]] = [
        (f"/workspaces/{workspace['id']}/overview", _is_measured) for workspace in WORKSPACES
    ]
    waiting.append(("/health", _is_healthy))
    while waiting:
        path, holds = waiting[0]
        seen, data = _get(f"{url}/internal/v1{path}", headers)
        if data is not None and holds(data):
            waiting.pop(0)
            continue
        if stop() or service.ended() is not None or time.monotonic() > deadline:
            raise ChildFailed("the service", f"does not answer {path} as it should ({seen})", service.log)
        time.sleep(POLL_SECONDS)


def _is_measured(overview: dict[str, Any]) -> bool:
    return overview["resource_usage"]["cpu"]["used"] is not None


def _is_healthy(health: dict[str, Any]) -> bool:
    return bool(health["status"] == "healthy")


def _get(url: str, headers: dict[str, str]) -> tuple[str, dict[str, Any] | None]:
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - our own URL
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - our own URL
            return "HTTP 200", json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}", None
    except OSError as error:
        return str(error), None


def _start_playground(
    folder: Path, children: list[Child], stop: _Stop, *, seed: int, speed: float, env: dict[str, str]
) -> dict[str, Any]:
    manifest = folder / "rbac.yaml"
    manifest.write_text(_rights())
    arguments = [
        sys.executable, "-m", "opsapi.playground", "--port", "0", "--world", "demo",
        "--seed", str(seed), "--speed", str(speed),
        "--kubeconfig", str(folder / "kubeconfig"), "--ready-file", str(folder / "playground.json"),
        "--manifest", str(manifest),
    ]  # fmt: skip
    for name in ("reader", "operator"):
        arguments += ["--service-account", f"opsapi/opsapi-{name}={folder / f'kubeconfig-{name}'}"]
    child = Child("the playground", arguments, log=folder / "playground.log", ready=folder / "playground.json", env=env)
    children.append(child)
    return child.wait_ready(120, stop)


def _rights() -> str:
    """What `opsapi workspaces rbac` prints, for an account that reads and one that acts."""
    namespaces = tuple(namespace for workspace in WORKSPACES for namespace in workspace["namespaces"])
    reading = {Feature.READ, Feature.ADDONS, Feature.METRICS}
    return "---\n".join(
        [
            manifest(reading, namespaces=namespaces, account="opsapi-reader", cluster_wide=True),
            manifest(ACTING, namespaces=namespaces, account="opsapi-operator"),
        ]
    )


def _write_config(folder: Path, port: int) -> Path:
    def key() -> str:
        return base64.b64encode(secrets.token_bytes(32)).decode()

    config = {
        "http": {"host": "127.0.0.1", "port": port, "drain_seconds": 2},
        "operations": {"drain_seconds": 2},
        "database": {"url": f"sqlite+aiosqlite:///{folder / 'opsapi.db'}"},
        "keys": {"audit": key(), "encryption": [key()]},
        "backups": {"store": {"url": f"file://{folder / 'backups'}"}},
        "workspaces": [
            {
                "id": workspace["id"],
                "name": workspace["name"],
                "organization": "demo",
                "plan": "dedicated" if workspace["id"] == "ws-demo" else "shared",
                "mode": "act",
                "namespaces": workspace["namespaces"],
                "kubeconfig": str(folder / "kubeconfig-reader"),
                "act": {"kubeconfig": str(folder / "kubeconfig-operator")},
            }
            for workspace in WORKSPACES
        ],
    }
    (folder / "backups").mkdir(mode=0o700)
    path = folder / "opsapi.yaml"
    _write_private(path, yaml.safe_dump(config, sort_keys=False))
    return path


async def _create_accounts(settings: Settings) -> dict[str, dict[str, str]]:
    from opsapi.wiring import opened_state

    made = {}
    async with opened_state(settings) as state:
        for name, (kind, grants) in ACCOUNTS.items():
            account, token = await state.create_account(
                name=f"demo {name}", kind=kind, grants=grants, by=operator("demo")
            )
            made[name] = {"id": account, "token": token}
    return made


def _write_private(path: Path, text: str) -> None:
    """Whole or not at all, readable by the owner alone."""
    part = _part_of(path)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as sink:
        sink.write(text)
    part.replace(path)


def introduction(ready: dict[str, Any], *, seconds: float) -> str:
    """What a newcomer sees: where everything is and five calls to try."""
    accounts, url = ready["accounts"], ready["url"]
    workspace = ready["workspaces"][0]
    lines = [
        "",
        f"opsapi is up at {url} (ready in {seconds:.1f} s). Docs: {url}/internal/v1/docs",
        f"workspaces: {', '.join(ready['workspaces'])} (mode act)",
        f"kubectl:    kubectl --kubeconfig {ready['kubeconfig']} -n shop get pods",
        "",
        *(f"{name:<9} {made['id']}  {made['token']}" for name, made in accounts.items()),
        "",
        "Five calls to try, as the agent:",
        *curl_lines(ready, workspace),
        "",
        "Ctrl-C ends everything.",
    ]
    return "\n".join(lines)


def curl_lines(ready: dict[str, Any], workspace: str) -> list[str]:
    """Each a whole shell line; the last one scales a deployment."""
    agent, base = ready["accounts"]["agent"], f"{ready['url']}/internal/v1"
    head = f"curl -s -H 'Authorization: Bearer {agent['token']}' -H 'X-Service-Account: {agent['id']}'"
    return [
        f"{head} {base}/health",
        f"{head} {base}/workspaces/{workspace}/overview",
        f"{head} '{base}/workspaces/{workspace}/applications?limit=5'",
        f"{head} {base}/workspaces/{workspace}/nodes",
        f'{head} -H \'Content-Type: application/json\' -d \'{{"replicas": 4, "reason": "trying it out"}}\' '
        f"'{base}/workspaces/{workspace}/deployments/storefront/scale?project=shop'",
    ]


def _watch(children: list[Child], stop: _Stop) -> None:
    """Until we are told to stop or a child ends by itself."""
    while not stop():
        for child in children:
            if child.ended() is not None:
                raise ChildFailed(child.name, f"ended with code {child.ended()}", child.log)
        time.sleep(0.1)
