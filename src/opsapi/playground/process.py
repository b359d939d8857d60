"""A playground as a process of its own: builds a world, serves its API, drives its clock, and says when it is ready."""

import asyncio
import base64
import json
import logging
import os
import secrets
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from opsapi.playground import demo, scale
from opsapi.playground.admin import Admin
from opsapi.playground.api.app import ApiOptions, create_app
from opsapi.playground.api.authentication import service_account
from opsapi.playground.api.faults import ApiFaults
from opsapi.playground.api.server import RunningServer, serve
from opsapi.playground.node import NodeSpec
from opsapi.playground.registry import User
from opsapi.playground.world import ManifestError, World

log = logging.getLogger(__name__)
ADMIN = User("playground-admin", ("system:masters",))
_YOUNG = 60.0
"""Virtual seconds that worlds other than the demo have lived when they are ready."""
_INSTALLING = 600.0
"""As many on top for what is installed into them, which has a history of its own."""


class StartError(Exception):
    """The playground cannot start as asked; the text says what to change."""


@dataclass(frozen=True, slots=True)
class Options:
    """`world` is demo, empty or scale:NODESxPODS. `service_accounts` maps NAMESPACE/NAME to a kubeconfig's path."""

    host: str = "127.0.0.1"
    port: int = 0
    seed: int = 1
    speed: float = 1.0
    world: str = "demo"
    tls: bool = True
    ready_file: Path | None = None
    kubeconfig: Path | None = None
    manifests: tuple[Path, ...] = ()
    install: tuple[str, ...] = ()
    service_accounts: dict[str, Path] = field(default_factory=dict)


def build_world(options: Options, now: datetime) -> World:
    """A world whose virtual time has just reached `now`. Raises StartError."""
    age = demo.AGE if options.world == "demo" else _YOUNG
    if options.install:
        age += _INSTALLING
    world = World(now - timedelta(seconds=age), options.seed)
    world.drain.on_error = _log_failure
    if options.world == "demo":
        demo.build(world)
    elif options.world == "empty":
        for index in range(3):
            world.add_node(NodeSpec(f"node-{index + 1}", zone=f"zone-{'abc'[index]}"))
    elif options.world.startswith("scale:"):
        try:
            scale.build(world, scale.parse_fleet(options.world.removeprefix("scale:")))
        except ValueError as error:
            raise StartError(f"--world: {error}") from error
    else:
        raise StartError(f"--world: {options.world!r} is none of demo, empty, scale:NODESxPODS")
    for name in options.install:
        world.install(name)
    for path in options.manifests:
        _apply_file(world, path)
    world.advance(max(0.0, world.clock.at(now) - world.clock.monotonic()))
    return world


def _log_failure(error: Exception) -> None:
    log.error("%s", error, exc_info=error)


def _apply_file(world: World, path: Path) -> None:
    try:
        world.apply_text(path.read_text(), str(path))
    except OSError as error:
        raise StartError(f"--manifest {path}: {error.strerror}") from error
    except ManifestError as error:
        raise StartError(f"--manifest {error}") from error


def _account_tokens(world: World, names: list[str]) -> dict[str, str]:
    """NAMESPACE/NAME -> a token for it. Raises StartError where there is no such account."""
    tokens = {}
    for full in names:
        namespace, _, name = full.partition("/")
        if world.registry.find("serviceaccounts", namespace, name) is None:
            raise StartError(f"--service-account {full}: there is no such ServiceAccount; make it with --manifest")
        tokens[full] = secrets.token_urlsafe(32)
    return tokens


def kubeconfig(url: str, ca: str, user: str, token: str, namespace: str = "default") -> str:
    """One cluster, one user, one context by the name of `playground`."""
    cluster = {"server": url}
    if ca:
        cluster["certificate-authority-data"] = base64.b64encode(ca.encode()).decode()
    context = {"cluster": "playground", "user": user, "namespace": namespace}
    body = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "playground", "cluster": cluster}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "playground", "context": context}],
        "current-context": "playground",
    }
    return yaml.safe_dump(body, sort_keys=False)


def write_private(path: Path, text: str) -> None:
    """Replaces the file in one step; only its owner may read it. Raises StartError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        temporary.replace(path)
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from error


async def run(options: Options, world: World | None = None) -> None:
    """Serves a world (by default one built as asked) until SIGINT or SIGTERM, or until it is cancelled.

    Raises StartError before it is ready.
    """
    world = build_world(options, datetime.now(UTC)) if world is None else world
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    tokens = _account_tokens(world, list(options.service_accounts))
    admin = secrets.token_urlsafe(32)
    users = {admin: ADMIN}
    for full, token in tokens.items():
        namespace, _, name = full.partition("/")
        users[token] = service_account(namespace, name)
    faults = ApiFaults()
    control = Admin(world, faults, options.speed)
    app = create_app(world.objects, ApiOptions(users, world.logs, world.metrics, faults, control))
    # What building took has to be caught up with, so that the world stands at the present.
    world.advance(max(0.0, (datetime.now(UTC) - world.clock.now()).total_seconds()))
    try:
        async with serve(app, host=options.host, port=options.port, tls=options.tls) as server:
            _announce(options, server, admin, tokens)
            await _until(stopping, asyncio.create_task(world.clock.run(options.speed)))
    except OSError as error:
        raise StartError(f"cannot listen on {options.host}:{options.port}: {error.strerror}") from error


async def _until(stopping: asyncio.Event, ticking: asyncio.Task[None]) -> None:
    """Waits for the signal; a clock that breaks ends the process, since nothing would move any more."""
    waiting = asyncio.create_task(stopping.wait())
    try:
        done, _ = await asyncio.wait({waiting, ticking}, return_when=asyncio.FIRST_COMPLETED)
        if ticking in done:
            ticking.result()
    finally:
        for task in (waiting, ticking):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def _announce(options: Options, server: RunningServer, admin: str, tokens: dict[str, str]) -> None:
    """Writes the kubeconfigs, then the ready file."""
    if options.kubeconfig is not None:
        write_private(options.kubeconfig, kubeconfig(server.url, server.ca, "admin", admin))
    for full, path in options.service_accounts.items():
        namespace = full.partition("/")[0]
        text = kubeconfig(server.url, server.ca, full.replace("/", "-"), tokens[full], namespace)
        write_private(path, text)
    if options.ready_file is None:
        return
    ready = {
        "url": server.url,
        "pid": os.getpid(),
        "kubeconfig": str(options.kubeconfig) if options.kubeconfig is not None else None,
        "kubeconfigs": {full: str(path) for full, path in options.service_accounts.items()},
        "tokens": {"admin": admin, **tokens},
        "world": options.world,
        "seed": options.seed,
        "speed": options.speed,
        "workspaces": {name: list(spaces) for name, spaces in demo.WORKSPACES.items()}
        if options.world == "demo"
        else {},
    }
    write_private(options.ready_file, json.dumps(ready, indent=1) + "\n")
