"""`opsapi config`: what the service would connect to, and whether it can."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from opsapi.adapters.sql.urls import normal_url
from opsapi.cli.context import read_settings
from opsapi.cli.output import out, progress
from opsapi.http.server import UnsafeListener, check_listener
from opsapi.http.tls import TlsUnusable, server_context
from opsapi.kit.clock import SystemClock
from opsapi.kit.errors import DependencyUnavailable
from opsapi.settings.model import Settings
from opsapi.settings.source import InvalidConfiguration
from opsapi.wiring import chain_keys, connect_only, open_database, sealer_of
from opsapi.wiring.limits import redis_answers
from opsapi.wiring.webhooks import refused_channels

app = typer.Typer(no_args_is_help=True, help="Check the configuration.")


@dataclass(frozen=True, slots=True)
class Finding:
    ok: bool
    what: str
    said: str


@app.command()
def check(
    config: Annotated[Path, typer.Option("--config", "-c", envvar="OPSAPI_CONFIG", help="The configuration file.")],
) -> None:
    """Validate the file, then try everything that it names. Changes nothing. Exit code 3 when something fails."""
    settings = read_settings(config)
    out.print(f"ok       {config} is valid", markup=False)
    with progress("trying what it names"):
        findings = asyncio.run(_findings(settings))
    for finding in findings:
        out.print(f"{'ok' if finding.ok else 'FAILED':<8} {finding.what}: {finding.said}", markup=False)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(3)


async def _findings(settings: Settings) -> list[Finding]:
    findings = [_keys(settings), _listener(settings), await _database(settings)]
    if settings.limits.redis_url is not None:
        findings.append(await _redis(settings))
    if settings.webhooks.channels or settings.webhooks.ca_file:
        findings.append(await _channels(settings))
    return findings + list(await asyncio.gather(*(_workspace(settings, one.id) for one in settings.workspaces)))


def _keys(settings: Settings) -> Finding:
    try:
        chain_keys(settings)
        sealer = sealer_of(settings)
    except InvalidConfiguration as invalid:
        return Finding(False, "keys", "; ".join(invalid.problems))
    stored = "kubeconfigs can be stored" if sealer else "no encryption key: workspaces come from this file alone"
    return Finding(True, "keys", f"the audit key is usable; {stored}")


def _listener(settings: Settings) -> Finding:
    http = settings.http
    where = f"{http.host}:{http.port}, {'TLS' if http.tls else 'plain HTTP'}"
    try:
        check_listener(http)
        if http.tls is not None:
            server_context(http.tls)
    except (UnsafeListener, TlsUnusable) as error:
        return Finding(False, "listener", str(error))
    return Finding(True, "listener", where)


async def _database(settings: Settings) -> Finding:
    try:
        url = normal_url(settings.database.url.reveal())
        database = open_database(settings, SystemClock())
    except (ValueError, InvalidConfiguration) as error:
        return Finding(False, "database", str(error))
    where = url.render_as_string(hide_password=True)
    if database.is_sqlite and not await asyncio.to_thread(Path(url.database or "").exists):
        await database.close()
        return Finding(True, "database", f"{where} does not exist yet; `opsapi serve` will create it")
    try:
        figures = await database.probe()
    except DependencyUnavailable as error:
        return Finding(False, "database", f"{where}: {error.message}")
    finally:
        await database.close()
    return Finding(True, "database", f"{where}: {figures.engine} {figures.version}, {figures.round_trip_ms:.1f} ms")


async def _redis(settings: Settings) -> Finding:
    try:
        answers = await redis_answers(settings.limits)
    except InvalidConfiguration as invalid:
        return Finding(False, "redis", "; ".join(invalid.problems))
    if not answers:
        return Finding(False, "redis", "it does not answer; each replica would count rate limits for itself")
    return Finding(True, "redis", "replicas share their rate limits")


async def _channels(settings: Settings) -> Finding:
    """Where they lead is looked at; nothing is sent."""
    try:
        refused = await refused_channels(settings.webhooks)
    except InvalidConfiguration as invalid:
        return Finding(False, "webhooks", "; ".join(invalid.problems))
    if refused:
        return Finding(False, "webhooks", "; ".join(f"{name}: {reason}" for name, reason in refused.items()))
    return Finding(True, "webhooks", f"{len(settings.webhooks.channels)} channels lead to addresses that are allowed")


async def _workspace(settings: Settings, workspace_id: str) -> Finding:
    state = await connect_only(settings, workspace_id)
    what = f"workspace {workspace_id}"
    if not state.reachable:
        return Finding(False, what, state.reason)
    return Finding(True, what, f"Kubernetes {state.version}, {state.latency_ms:.0f} ms")
