"""From a ClusterAccess to an authenticated way to the API server, kept fresh for as long as it is used.

The official client reads kubeconfigs and ServiceAccounts; around it, what a service needs: secrets of an inline
kubeconfig never reach a disk, plugins run within limits, tokens are read again, and a refused token leads to new ones.
"""

import asyncio
import base64
import binascii
import importlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import yaml
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from opsapi.adapters.kubernetes.addresses import AddressGuard, GuardedResolver
from opsapi.adapters.kubernetes.plugin import Plugin, PluginFailed, run
from opsapi.adapters.kubernetes.transport import Line, Unreachable
from opsapi.kit.clock import Clock
from opsapi.workspaces.model import ClusterAccess

_TOKEN_AGE = timedelta(seconds=60)
"""Kubernetes rotates ServiceAccount tokens well before they end; client-go reads the file as often."""
_SKEW = timedelta(seconds=60)
_RETRY = 10.0
"""Seconds between two tries to get credentials, however many requests wait for them."""
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_EMBEDDED = ("certificate-authority", "client-certificate", "client-key")


class BadAccess(Exception):
    """The kubeconfig or ServiceAccount cannot be used; the message says why and quotes no secret."""


class TlsMaterial(msgspec.Struct, frozen=True):
    """What a TLS context is made of: where it is equal, connections can stay."""

    ca: bytes = b""
    certificate: bytes = b""
    key: bytes = b""
    verify: bool = True

    def __repr__(self) -> str:
        return "TlsMaterial(hidden)"


class Endpoint(msgspec.Struct, frozen=True):
    """One reading of the credentials. `renew_at` None: they do not end as far as is known."""

    server: str
    authorization: str | None
    material: TlsMaterial
    context: ssl.SSLContext | None
    server_hostname: str | None = None
    proxy: str | None = None
    renew_at: datetime | None = None

    def __repr__(self) -> str:
        return f"Endpoint({self.server!r}, credentials hidden)"


def _plain_http(server: str) -> bool:
    return URL(server).scheme == "http"


async def read_access(access: ClusterAccess, now: datetime, *, account: Path = _ACCOUNT) -> Endpoint:
    """Raises BadAccess."""
    try:
        await asyncio.to_thread(importlib.import_module, "kubernetes.aio.config")  # takes a third of a second
        if access.in_cluster:
            return await asyncio.to_thread(_in_cluster, account, now)
        if access.inline:
            text, base = access.inline, Path("/")
        else:
            text, base = await asyncio.to_thread(_read_file, Path(access.path))
        return await _kubeconfig(text, access.context, base, now)
    except OSError as error:
        named = Path(str(error.filename)).name if error.filename else "kubeconfig"
        raise BadAccess(f"{error.strerror or error}: {named}") from error
    except UnicodeDecodeError as error:
        raise BadAccess("the kubeconfig is not UTF-8 text") from error


def _read_file(path: Path) -> tuple[str, Path]:
    """The text and the folder that its relative paths start from."""
    return path.read_text(encoding="utf-8"), path.resolve().parent


def _in_cluster(account: Path, now: datetime) -> Endpoint:
    from kubernetes.aio.client import Configuration
    from kubernetes.aio.config import ConfigException
    from kubernetes.aio.config.incluster_config import InClusterConfigLoader

    configuration = Configuration()
    try:
        loader = InClusterConfigLoader(str(account / "token"), str(account / "ca.crt"), False)  # type: ignore[no-untyped-call]
        loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
    except ConfigException as error:
        raise BadAccess(f"the service does not run in a Kubernetes Pod with a ServiceAccount: {error}") from error
    return _endpoint(configuration, now + _TOKEN_AGE)


async def _kubeconfig(text: str, context: str, base: Path, now: datetime) -> Endpoint:
    """Resolves what the official loader would leave on a disk, never repeat or wait for without end (embedded keys,
    token files, plugins), and leaves the rest to it."""
    from kubernetes.aio.client import Configuration
    from kubernetes.aio.config import ConfigException
    from kubernetes.aio.config.kube_config import KubeConfigLoader

    document = _parsed(text)
    context = context or str(document.get("current-context") or "")
    cluster, user = chosen(document, context)
    if "auth-provider" in user:
        raise BadAccess("auth-provider was removed from Kubernetes 1.26; use an exec plugin or a token")
    renew_at: datetime | None = None
    if spec := user.pop("exec", None):
        renew_at = await _from_plugin(spec, cluster, user, base)
    elif token_file := user.pop("tokenFile", None):
        token = await asyncio.to_thread((base / str(token_file)).read_text)
        user["token"], renew_at = token.strip(), now + _TOKEN_AGE
    with ExitStack() as files:
        for section in (cluster, user):
            for key in _EMBEDDED:
                if data := section.pop(f"{key}-data", None):
                    section[key] = files.enter_context(private_file(_unbase64(key, data)))
        lean = {
            "current-context": context,
            "contexts": [{"name": context, "context": {"cluster": "cluster", "user": "user"}}],
            "clusters": [{"name": "cluster", "cluster": cluster}],
            "users": [{"name": "user", "user": user}],
        }
        configuration = Configuration()
        try:
            loader = KubeConfigLoader(lean, active_context=context, config_base_path=str(base))  # type: ignore[no-untyped-call]
            await loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
        except ConfigException as error:
            raise BadAccess(str(error)) from error
        return await asyncio.to_thread(_endpoint, configuration, renew_at)


def _parsed(text: str) -> dict[str, Any]:
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        raise BadAccess(f"the kubeconfig is not YAML{f' (line {where.line + 1})' if where else ''}") from error
    if not isinstance(document, dict):
        raise BadAccess("the kubeconfig is no mapping")
    return document


def chosen(document: dict[str, Any], context: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The cluster and the user of a context, as copies. Raises BadAccess naming what is missing."""
    if not context:
        raise BadAccess("the kubeconfig has no current-context; name one")
    link = _named(document, "contexts", "context", context)
    cluster = _named(document, "clusters", "cluster", str(link.get("cluster") or ""))
    user = _named(document, "users", "user", str(link["user"])) if link.get("user") else {}
    if not isinstance(cluster.get("server"), str) or not cluster["server"]:
        raise BadAccess("the context's cluster has no server")
    return cluster, user


def _named(document: dict[str, Any], section: str, key: str, name: str) -> dict[str, Any]:
    entries = document.get(section)
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get("name") == name:
            held = entry.get(key) or {}
            if isinstance(held, dict):
                return dict(held)
    raise BadAccess(f"the kubeconfig has no {key} {name!r}")


async def _from_plugin(spec: object, cluster: dict[str, Any], user: dict[str, Any], base: Path) -> datetime | None:
    """Puts the plugin's credential into `user`; returns when to run it again."""
    try:
        credential = await run(msgspec.convert(spec, Plugin), cluster, base)
    except msgspec.ValidationError as error:
        raise BadAccess(f"the user's exec section: {error}") from error
    except PluginFailed as error:
        raise BadAccess(str(error)) from error
    if credential.token:
        user["token"] = credential.token
    if credential.client_certificate_data:
        user["client-certificate-data"] = base64.b64encode(credential.client_certificate_data.encode()).decode()
        user["client-key-data"] = base64.b64encode(credential.client_key_data.encode()).decode()
    return credential.expiration_timestamp - _SKEW if credential.expiration_timestamp else None


def _unbase64(key: str, data: object) -> bytes:
    try:
        return base64.b64decode(str(data), validate=False)
    except (binascii.Error, ValueError) as error:
        raise BadAccess(f"{key}-data is not base64") from error


@contextmanager
def private_file(content: bytes) -> Iterator[str]:
    """A path for what OpenSSL only reads from files: in memory where the system has that, else readable by us alone
    and removed at once."""
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        descriptor = os.memfd_create("opsapi", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    descriptor, name = tempfile.mkstemp()  # created with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        yield name
    finally:
        with suppress(OSError):
            os.remove(name)


def _endpoint(configuration: Any, renew_at: datetime | None) -> Endpoint:
    """Reads what the official client found; the TLS context is its own as well."""
    from kubernetes.aio.client.rest import RESTClientObject

    token = configuration.api_key.get("BearerToken")
    material, context = TlsMaterial(), None
    if not _plain_http(configuration.host):
        files = (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file)
        ca, certificate, key = (Path(file).read_bytes() if file else b"" for file in files)
        material = TlsMaterial(ca, certificate, key, bool(configuration.verify_ssl))
        try:
            context = RESTClientObject(configuration).ssl_context
        except (ssl.SSLError, ValueError) as error:
            raise BadAccess(f"the certificates of the kubeconfig cannot be used: {error}") from error
    return Endpoint(
        server=str(configuration.host).rstrip("/"),
        authorization=" ".join(str(token).split()) if token else None,
        material=material,
        context=context,
        server_hostname=configuration.tls_server_name or None,
        proxy=configuration.proxy or None,
        renew_at=renew_at,
    )


class _Abrupt(aiohttp.TCPConnector):
    """Drops what is not used again, such as a watch that was given up. A polite end of TLS waits for the server's, and
    would outlive the workspace's own close."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._ending: set[asyncio.Future[None]] = set()

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        if (self._force_close or should_close or protocol.should_close) and (ended := protocol.closed) is not None:
            self._ending.add(ended)
            ended.add_done_callback(self._ending.discard)
            protocol.abort()
        super()._release(key, protocol, should_close=should_close)

    async def close(self, *, abort_ssl: bool = True) -> None:
        await super().close(abort_ssl=abort_ssl)
        await asyncio.gather(*self._ending, return_exceptions=True)


class KubeconfigAccess:
    """Implements the transport's Access. One session for as long as server and certificates stay the same."""

    def __init__(
        self,
        access: ClusterAccess,
        clock: Clock,
        *,
        guard: AddressGuard | None = None,
        reuse_connections: bool = True,
        account: Path = _ACCOUNT,
    ) -> None:
        """`guard` is for kubeconfigs that came through the API. Without `reuse_connections` a request never fails for
        a connection that the server had closed meanwhile, at the price of a handshake: for writes."""
        self._access = access
        self._clock = clock
        self._guard = guard
        self._reuse = reuse_connections
        self._account = account
        self._endpoint: Endpoint | None = None
        self._line: Line | None = None
        self._lock = asyncio.Lock()
        self._tried = float("-inf")
        self._failure = ""
        self._rejected = False
        self._closed = False

    async def line(self) -> Line:
        if self._line is None or self._due():
            async with self._lock:
                if self._line is None or self._due():
                    await self._renew()
        if self._line is None:
            raise Unreachable(f"no credentials: {self._failure}", sent=False)
        return self._line

    def rejected(self, line: Line) -> None:
        if line is self._line:
            self._rejected = True

    async def close(self) -> None:
        self._closed = True
        if self._line is not None:
            await self._line.session.close()

    def _due(self) -> bool:
        ends = self._endpoint.renew_at if self._endpoint is not None else None
        wanted = self._rejected or (ends is not None and self._clock.now() >= ends)
        return wanted and self._clock.monotonic() - self._tried >= _RETRY

    async def _renew(self) -> None:
        """A failure keeps what there is: it may still be good, and the server will say if it is not."""
        if self._closed:
            raise Unreachable("the workspace was closed", sent=False)
        if self._clock.monotonic() - self._tried < _RETRY:
            return
        self._tried = self._clock.monotonic()
        try:
            endpoint = await read_access(self._access, self._clock.now(), account=self._account)
            self._check_address(endpoint)
        except BadAccess as error:
            self._failure = str(error)
            return
        if self._closed:  # while the credentials were read
            raise Unreachable("the workspace was closed", sent=False)
        self._rejected = False
        old, known = self._line, self._endpoint
        self._endpoint = endpoint
        if old is not None and known is not None and _same_way(known, endpoint):
            self._line = msgspec.structs.replace(old, authorization=endpoint.authorization)
            return
        self._line = Line(
            endpoint.server, self._session(endpoint), endpoint.authorization, endpoint.server_hostname, endpoint.proxy
        )
        if old is not None:
            await old.session.close()

    def _check_address(self, endpoint: Endpoint) -> None:
        """Hosts written as addresses are never resolved, so the resolver's guard does not see them."""
        if self._guard is None:
            return
        host = URL(endpoint.server).host or ""
        with suppress(ValueError):
            if not self._guard.permits(host, host):
                raise BadAccess(f"{host} is not a public address")

    def _session(self, endpoint: Endpoint) -> aiohttp.ClientSession:
        connector = _Abrupt(
            limit=0,  # a watch per kind and namespace, each on a connection of its own
            ssl=endpoint.context if endpoint.context is not None else True,
            resolver=GuardedResolver(self._guard) if self._guard is not None else None,
            force_close=not self._reuse,
        )
        return aiohttp.ClientSession(
            connector=connector,
            trust_env=self._guard is None,  # a proxy would undo the guard
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=2**20,
        )


def _same_way(one: Endpoint, other: Endpoint) -> bool:
    return (one.server, one.material, one.server_hostname, one.proxy) == (
        other.server,
        other.material,
        other.server_hostname,
        other.proxy,
    )
