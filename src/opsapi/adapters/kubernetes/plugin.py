"""Credential plugins of a kubeconfig (`user.exec`), run without a terminal and within a time limit.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
The official client's own runner has no time limit and swallows a plugin's errors; hence this one.
"""

import asyncio
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

_LIMIT = 30.0
_SHOWN = 300
_OURS = "OPSAPI_"
"""The service's own settings, keys among them: no business of a plugin's."""
_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


class PluginFailed(Exception):
    """No credential came out; the message says why and is fit for an operator."""


class Variable(msgspec.Struct, frozen=True):
    name: str
    value: str = ""


class Plugin(msgspec.Struct, frozen=True, rename="camel"):
    """A kubeconfig's `exec` section."""

    command: str
    api_version: str
    args: tuple[str, ...] | None = None
    env: tuple[Variable, ...] | None = None
    install_hint: str = ""
    provide_cluster_info: bool = False
    interactive_mode: str = "IfAvailable"


class Credential(msgspec.Struct, frozen=True, rename="camel"):
    token: str = ""
    client_certificate_data: str = ""
    """PEM, not base64."""
    client_key_data: str = ""
    expiration_timestamp: datetime | None = None

    def __repr__(self) -> str:
        return "Credential(hidden)"


class _ExecCredential(msgspec.Struct, frozen=True, rename="camel"):
    api_version: str
    status: Credential


async def run(plugin: Plugin, cluster: dict[str, Any], base: Path) -> Credential:
    """Raises PluginFailed."""
    if plugin.api_version not in _VERSIONS:
        raise PluginFailed(f"exec.apiVersion {plugin.api_version!r} is not one of {', '.join(_VERSIONS)}")
    if plugin.interactive_mode == "Always":
        raise PluginFailed(f"{plugin.command} asks questions (interactiveMode: Always), and nobody is there to answer")
    output = await _output(plugin, _environment(plugin, cluster), base)
    try:
        answer = msgspec.json.decode(output, type=_ExecCredential)
    except msgspec.DecodeError as error:
        raise PluginFailed(f"{plugin.command} printed no ExecCredential: {error}") from error
    credential = answer.status
    if answer.api_version != plugin.api_version:
        raise PluginFailed(f"{plugin.command} answered in {answer.api_version}, not in {plugin.api_version}")
    if not credential.token and not (credential.client_certificate_data and credential.client_key_data):
        raise PluginFailed(f"{plugin.command} gave neither a token nor a client certificate with its key")
    return credential


def _environment(plugin: Plugin, cluster: dict[str, Any]) -> dict[str, str]:
    spec: dict[str, Any] = {"interactive": False}
    if plugin.provide_cluster_info:
        known = ("server", "certificate-authority-data", "tls-server-name", "insecure-skip-tls-verify", "proxy-url")
        spec["cluster"] = {key: cluster[key] for key in known if key in cluster}
    info = {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec}
    extra = {variable.name: variable.value for variable in plugin.env or ()}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**inherited, **extra, "KUBERNETES_EXEC_INFO": msgspec.json.encode(info).decode()}


async def _output(plugin: Plugin, environment: dict[str, str], base: Path) -> bytes:
    # As kubectl does: a path is relative to the kubeconfig, a bare name is looked up on the PATH.
    command = str(base / plugin.command) if "/" in plugin.command else plugin.command
    try:
        process = await asyncio.create_subprocess_exec(
            command,
            *(plugin.args or ()),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        hint = f" ({plugin.install_hint.strip()[:_SHOWN]})" if plugin.install_hint else ""
        raise PluginFailed(f"{plugin.command} cannot be started: {error.strerror or error}{hint}") from error
    try:
        async with asyncio.timeout(_LIMIT):
            output, complaint = await process.communicate()
    except TimeoutError:
        raise PluginFailed(f"{plugin.command} did not finish within {_LIMIT:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        said = complaint.decode(errors="replace").strip()[-_SHOWN:]
        raise PluginFailed(f"{plugin.command} ended with code {process.returncode}: {said}")
    return output
