"""The rules for a kubeconfig that comes through the API: it carries all it needs, runs nothing, reads no file of ours,
verifies TLS and leads to an address that it may lead to."""

import asyncio
import base64
import binascii
import socket
from datetime import datetime
from typing import Any

import msgspec
import yaml
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from yarl import URL

from opsapi.adapters.kubernetes.addresses import AddressGuard, AddressRefused
from opsapi.adapters.kubernetes.connect import BadAccess, chosen
from opsapi.workspaces.errors import UnusableKubeconfig
from opsapi.workspaces.model import ClusterAccess

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_BYTES = 128 * 1024
_MAX_DEPTH = 12
_RESOLUTION_LIMIT = 5.0
_MAX_TOKENS = 20_000
_WHOLE = "kubeconfig"
_FLATTEN = "embed the content instead: `kubectl config view --raw --minify --flatten` prints it so"
_PATHS = {"certificate-authority": _FLATTEN, "client-certificate": _FLATTEN, "client-key": _FLATTEN, "tokenFile": (
    "names a file on your machine; put a ServiceAccount's token into `token`"
)}  # fmt: skip
_CLUSTER_REFUSED = {
    "insecure-skip-tls-verify": "TLS must be verified; remove it and give certificate-authority-data",
    "proxy-url": "proxies are not allowed; the service connects to the server itself",
}
_USER_REFUSED = {
    "exec": "would run a program; create a ServiceAccount and put its token into `token`",
    "auth-provider": "was removed from Kubernetes; create a ServiceAccount and put its token into `token`",
    "username": "basic authentication was removed from Kubernetes; use a token or a client certificate",
    "password": "basic authentication was removed from Kubernetes; use a token or a client certificate",
}
_CLUSTER_KEYS = frozenset({"server", "certificate-authority-data", "tls-server-name", "disable-compression"})
_USER_KEYS = frozenset({"token", "client-certificate-data", "client-key-data"})
_IGNORED = frozenset({"extensions"})


class _Rules:
    """Collects what breaks them, by key; never quotes a value."""

    def __init__(self) -> None:
        self.broken: dict[str, str] = {}

    def refuse(self, path: str, why: str) -> None:
        self.broken.setdefault(path, why)

    def end(self) -> None:
        if self.broken:
            raise UnusableKubeconfig(self.broken)


async def check_upload(kubeconfig: str, context: str, *, guard: AddressGuard, now: datetime) -> ClusterAccess:
    """Raises UnusableKubeconfig. The answer holds only the context, its cluster and its user."""
    document = await asyncio.to_thread(_parse, kubeconfig)
    context = context or str(document.get("current-context") or "")
    try:
        cluster, user = chosen(document, context)
    except BadAccess as error:
        path = "context" if "context" in str(error) else _WHOLE
        raise UnusableKubeconfig({path: str(error)}) from error
    rules = _Rules()
    at_cluster, at_user = f"{_WHOLE}.clusters[].cluster", f"{_WHOLE}.users[].user"
    _check_keys(rules, at_cluster, cluster, _CLUSTER_KEYS, _CLUSTER_REFUSED)
    _check_keys(rules, at_user, user, _USER_KEYS, _USER_REFUSED)
    _check_authority(rules, f"{at_cluster}.certificate-authority-data", cluster)
    _check_credentials(rules, at_user, user, now)
    await _check_server(rules, f"{at_cluster}.server", cluster["server"], guard)
    rules.end()
    lean = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "contexts": [{"name": context, "context": {"cluster": "cluster", "user": "user"}}],
        "clusters": [{"name": "cluster", "cluster": _kept(cluster, _CLUSTER_KEYS)}],
        "users": [{"name": "user", "user": _kept(user, _USER_KEYS)}],
    }
    return ClusterAccess(inline=msgspec.json.encode(lean).decode(), context=context)


def _kept(section: dict[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key in keys}


def _parse(text: str) -> dict[str, Any]:
    """Looks at the events before anything is built, so that aliases cannot blow up and depth is bounded."""
    if len(text.encode()) > MAX_BYTES:
        raise UnusableKubeconfig({_WHOLE: f"is larger than {MAX_BYTES // 1024} KiB; {_FLATTEN}"})
    try:
        depth = 0
        for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise UnusableKubeconfig({_WHOLE: "YAML anchors and aliases are not allowed"})
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > _MAX_DEPTH or count > _MAX_TOKENS:
                raise UnusableKubeconfig({_WHOLE: "is nested deeper or holds more than a kubeconfig needs"})
        document = yaml.load(text, Loader=_Loader)  # noqa: S506, a safe one
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        raise UnusableKubeconfig({_WHOLE: f"is not valid YAML{where}"}) from error
    if not isinstance(document, dict):
        raise UnusableKubeconfig({_WHOLE: "is no mapping; send the kubeconfig's content as one string"})
    return document


def _check_keys(
    rules: _Rules, path: str, section: dict[str, Any], known: frozenset[str], refused: dict[str, str]
) -> None:
    for key in section:
        if key in _PATHS:
            rules.refuse(f"{path}.{key}", f"file paths are not allowed; {_PATHS[key]}")
        elif key in refused:
            # An explicit `insecure-skip-tls-verify: false` asks for nothing.
            if section[key] not in (None, False, ""):
                rules.refuse(f"{path}.{key}", refused[key])
        elif key not in known and key not in _IGNORED:
            rules.refuse(f"{path}.{str(key)[:60]}", "is not supported in an uploaded kubeconfig; remove it")
    for key in known & section.keys():
        if key != "disable-compression" and (not isinstance(section[key], str) or not section[key].strip()):
            rules.refuse(f"{path}.{key}", "must be a text that is not empty")


def _check_authority(rules: _Rules, path: str, cluster: dict[str, Any]) -> None:
    data = cluster.get("certificate-authority-data")
    if isinstance(data, str):
        try:
            x509.load_pem_x509_certificates(base64.b64decode(data))
        except (ValueError, binascii.Error):
            rules.refuse(path, "is no PEM certificate in base64")


def _check_credentials(rules: _Rules, path: str, user: dict[str, Any], now: datetime) -> None:
    token, certificate, key = (user.get(name) for name in ("token", "client-certificate-data", "client-key-data"))
    if not (token or certificate or key):
        if not rules.broken:
            rules.refuse(path, "holds no credentials; give `token`, or client-certificate-data and client-key-data")
        return
    if bool(certificate) != bool(key):
        missing = "client-key-data" if certificate else "client-certificate-data"
        rules.refuse(f"{path}.{missing}", "is missing; a client certificate needs its key")
    if isinstance(token, str):
        _check_token(rules, f"{path}.token", token.strip(), now)
    if isinstance(certificate, str) and isinstance(key, str):
        _check_certificate(rules, path, certificate, key, now)


def _check_token(rules: _Rules, path: str, token: str, now: datetime) -> None:
    if not token.isascii() or any(character.isspace() or not character.isprintable() for character in token):
        rules.refuse(path, "holds characters that no token has")
        return
    ends = _token_end(token)
    if ends is not None and ends <= now.timestamp():
        rules.refuse(path, "has expired; create a new one: `kubectl create token NAME --duration=8760h`")


class _Claims(msgspec.Struct, frozen=True):
    exp: float | None = None


def _token_end(token: str) -> float | None:
    """A JSON Web Token's `exp`; None for other tokens. The API server checks the signature, not we."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return msgspec.json.decode(payload, type=_Claims).exp
    except (ValueError, binascii.Error):
        return None


def _check_certificate(rules: _Rules, path: str, certificate: str, key: str, now: datetime) -> None:
    at_certificate, at_key = f"{path}.client-certificate-data", f"{path}.client-key-data"
    try:
        leaf = x509.load_pem_x509_certificates(base64.b64decode(certificate))[0]
    except (ValueError, binascii.Error, IndexError):
        rules.refuse(at_certificate, "is no PEM certificate in base64")
        return
    if leaf.not_valid_after_utc <= now:
        rules.refuse(at_certificate, f"expired on {leaf.not_valid_after_utc:%Y-%m-%d}; issue a new one")
    elif leaf.not_valid_before_utc > now:
        rules.refuse(at_certificate, f"is not valid before {leaf.not_valid_before_utc:%Y-%m-%d}")
    try:
        private = load_pem_private_key(base64.b64decode(key), password=None)
    except TypeError:
        rules.refuse(at_key, "is encrypted with a passphrase; give it without")
        return
    except (ValueError, binascii.Error, UnsupportedAlgorithm):
        rules.refuse(at_key, "is no PEM private key in base64")
        return
    shape = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*shape) != leaf.public_key().public_bytes(*shape):
        rules.refuse(at_key, "does not belong to the client certificate")


async def _check_server(rules: _Rules, path: str, server: str, guard: AddressGuard) -> None:
    try:
        url = URL(server)
        host, port = url.host or "", url.port
    except ValueError:
        rules.refuse(path, "is no URL")
        return
    if url.scheme not in ("https", "http") or not host or port is None:
        rules.refuse(path, "must be https://host[:port][/path]")
        return
    if url.user is not None or url.query_string or url.fragment:
        rules.refuse(path, "must hold neither credentials nor a query nor a fragment")
        return
    if url.scheme == "http" and not guard.allows(host):
        rules.refuse(path, "must be https; plain http is only for hosts on the operator's allow-list")
        return
    try:
        async with asyncio.timeout(_RESOLUTION_LIMIT):
            await guard.addresses(host, port)
    except AddressRefused:
        rules.refuse(
            path,
            "leads to a private, loopback, link-local or metadata address; the operator can allow its host or network "
            "in the configuration: kubernetes.upload_allow",
        )
    except (socket.gaierror, UnicodeError):
        rules.refuse(path, "its host name cannot be resolved")
    except OSError:
        rules.refuse(path, "its host name cannot be resolved now; try again")
