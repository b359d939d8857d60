"""Every way to authenticate that a kubeconfig knows, against a server that checks it."""

import asyncio
import json
import os
import stat
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from opsapi.adapters.kubernetes import connect, plugin
from opsapi.adapters.kubernetes.addresses import AddressGuard
from opsapi.adapters.kubernetes.clustertime import ClusterClock
from opsapi.adapters.kubernetes.connect import BadAccess, KubeconfigAccess, private_file, read_access
from opsapi.adapters.kubernetes.transport import Refused, Transport, Unreachable
from opsapi.adapters.kubernetes.tuning import Tuning
from opsapi.workspaces.model import ClusterAccess
from support.certificates import Authority, Issued, encoded
from support.leaping import LeapingTime
from support.misbehaving import Fault, MisbehavingServer, Reply, Request, answers, status_body

VERSION = {"gitVersion": "v1.36.0"}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def server(authority: Authority, tmp_path: Path) -> AsyncIterator[MisbehavingServer]:
    async with MisbehavingServer(tls=authority.server_context(tmp_path)) as one:
        one.always["/version"] = answers(200, body=VERSION)
        yield one


@pytest.fixture(autouse=True)
def _nothing_is_left_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


class Client:
    """A transport over an access, on leaping time."""

    def __init__(self, access: ClusterAccess, **options: Any) -> None:
        self.time = LeapingTime()
        self.access = KubeconfigAccess(access, self.time, **options)
        self.transport = Transport(self.access, Tuning(), self.time, ClusterClock(self.time))

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.transport.close()

    async def version(self) -> bytes:
        return await self.transport.get("/version")


def kubeconfig(server: MisbehavingServer, authority: Authority, user: dict[str, Any], *, address: str = "") -> str:
    held = {"server": address or server.url, "certificate-authority-data": encoded(authority.pem)}
    return yaml.safe_dump(
        {
            "current-context": "main",
            "contexts": [
                {"name": "main", "context": {"cluster": "one", "user": "me"}},
                {"name": "other", "context": {"cluster": "one", "user": "you"}},
                {"name": "broken", "context": {"cluster": "nowhere", "user": "me"}},
            ],
            "clusters": [{"name": "one", "cluster": held}],
            "users": [{"name": "me", "user": user}, {"name": "you", "user": {"token": "your-token"}}],
        }
    )


async def test_a_token_is_sent(server: MisbehavingServer, authority: Authority) -> None:
    async with Client(ClusterAccess(inline=kubeconfig(server, authority, {"token": "my-token"}))) as client:
        assert json.loads(await client.version()) == VERSION
        assert "my-token" not in repr(await client.access.line())
    assert server.requests[0].headers["authorization"] == "Bearer my-token"


async def test_the_context_chooses_the_user(server: MisbehavingServer, authority: Authority) -> None:
    text = kubeconfig(server, authority, {"token": "my-token"})
    async with Client(ClusterAccess(inline=text, context="other")) as client:
        await client.version()
    assert server.requests[0].headers["authorization"] == "Bearer your-token"


@pytest.mark.parametrize(("context", "said"), [("nosuch", "no context 'nosuch'"), ("broken", "no cluster 'nowhere'")])
async def test_what_a_context_lacks_is_named(
    server: MisbehavingServer, authority: Authority, context: str, said: str
) -> None:
    text = kubeconfig(server, authority, {"token": "my-token"})
    with pytest.raises(BadAccess, match=said):
        await read_access(ClusterAccess(inline=text, context=context), datetime.now(UTC))


async def test_a_client_certificate_is_shown(authority: Authority, tmp_path: Path) -> None:
    issued = authority.issue("agent-smith")
    tls = authority.server_context(tmp_path, asks_for_certificate=True)
    async with MisbehavingServer(tls=tls) as server:
        server.always["/version"] = answers(200, body=VERSION)
        user = _certificate(issued)
        async with Client(ClusterAccess(inline=kubeconfig(server, authority, user))) as client:
            await client.version()
        assert server.requests[0].client == "agent-smith"
        assert "authorization" not in server.requests[0].headers


def _certificate(issued: Issued) -> dict[str, str]:
    return {"client-certificate-data": encoded(issued.certificate), "client-key-data": encoded(issued.key)}


async def test_paths_are_relative_to_the_kubeconfig(
    server: MisbehavingServer, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    (tmp_path / "token").write_text("from-a-file\n")
    text = kubeconfig(server, authority, {"tokenFile": "token"})
    document = yaml.safe_load(text)
    document["clusters"][0]["cluster"] = {"server": server.url, "certificate-authority": "ca.crt"}
    (tmp_path / "config").write_text(yaml.safe_dump(document))
    async with Client(ClusterAccess(path=str(tmp_path / "config"))) as client:
        await client.version()
        assert server.requests[-1].headers["authorization"] == "Bearer from-a-file"
        (tmp_path / "token").write_text("rotated")
        await client.version()
        assert server.requests[-1].headers["authorization"] == "Bearer from-a-file"
        client.time.seconds += 61
        session = (await client.access.line()).session
        await client.version()
        assert server.requests[-1].headers["authorization"] == "Bearer rotated"
        assert (await client.access.line()).session is session


async def test_a_servers_certificate_of_another_authority_is_refused(server: MisbehavingServer) -> None:
    text = kubeconfig(server, Authority("imposter"), {"token": "secret"})
    async with Client(ClusterAccess(inline=text)) as client:
        with pytest.raises(Unreachable, match="TLS failed") as caught:
            await client.version()
    assert not caught.value.sent
    assert server.requests == []


async def test_the_services_own_account_is_used_and_its_token_read_again(
    server: MisbehavingServer, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    (tmp_path / "token").write_text("first\n")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    async with Client(ClusterAccess(in_cluster=True), account=tmp_path) as client:
        await client.version()
        assert server.requests[-1].headers["authorization"].lower() == "bearer first"
        (tmp_path / "token").write_text("second\n")
        client.time.seconds += 61
        await client.version()
        assert server.requests[-1].headers["authorization"].lower() == "bearer second"


async def test_outside_of_a_pod_in_cluster_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    async with Client(ClusterAccess(in_cluster=True), account=tmp_path) as client:
        with pytest.raises(Unreachable, match="does not run in a Kubernetes Pod") as caught:
            await client.version()
    assert not caught.value.sent


def exec_user(tmp_path: Path, status: dict[str, Any], *, code: int = 0, **more: Any) -> dict[str, Any]:
    """A plugin that notes its runs and what it was told."""
    script = tmp_path / "plugin.py"
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    script.write_text(
        "import json, os, pathlib, sys\n"
        f"log = pathlib.Path({str(tmp_path / 'runs')!r})\n"
        "runs = log.read_text().splitlines() if log.exists() else []\n"
        "log.write_text('\\n'.join([*runs, os.environ['KUBERNETES_EXEC_INFO']]) + '\\n')\n"
        "print('it is broken', file=sys.stderr)\n"
        f"answer = json.loads({json.dumps(answer)!r})\n"
        "token = answer['status'].get('token')\n"
        "if token: answer['status']['token'] = f'{token}-{len(runs) + 1}-{os.environ.get(\"EXTRA\")}'\n"
        "assert 'OPSAPI_KEYS_AUDIT' not in os.environ\n"
        "print(json.dumps(answer))\n"
        f"sys.exit({code})\n"
    )
    spec = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": [str(script)],
        "env": [{"name": "EXTRA", "value": "given"}],
        **more,
    }
    return {"exec": spec}


async def test_a_plugins_token_is_used_until_it_expires(
    server: MisbehavingServer, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPSAPI_KEYS_AUDIT", "secret")
    time = LeapingTime()
    ends = (time.now() + timedelta(minutes=10)).isoformat()
    user = exec_user(tmp_path, {"token": "exec", "expirationTimestamp": ends}, provideClusterInfo=True)
    async with Client(ClusterAccess(inline=kubeconfig(server, authority, user))) as client:
        await client.version()
        await client.version()
        client.time.seconds += 600
        await client.version()
    assert [one.headers["authorization"] for one in server.requests] == [
        "Bearer exec-1-given",
        "Bearer exec-1-given",
        "Bearer exec-2-given",
    ]
    told = json.loads((tmp_path / "runs").read_text().splitlines()[0])
    assert told["spec"]["interactive"] is False
    assert told["spec"]["cluster"]["server"] == server.url


async def test_a_plugins_client_certificate_is_shown(authority: Authority, tmp_path: Path) -> None:
    issued = authority.issue("from-plugin")
    tls = authority.server_context(tmp_path, asks_for_certificate=True)
    status = {"clientCertificateData": issued.certificate.decode(), "clientKeyData": issued.key.decode()}
    async with MisbehavingServer(tls=tls) as server:
        server.always["/version"] = answers(200, body=VERSION)
        text = kubeconfig(server, authority, exec_user(tmp_path, status))
        async with Client(ClusterAccess(inline=text)) as client:
            await client.version()
        assert server.requests[0].client == "from-plugin"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"command": "/no/such/plugin", "installHint": "install it so"}, "cannot be started.*install it so"),
        ({"args": ["-c", "import sys; sys.exit('bad luck')"]}, "ended with code 1: bad luck"),
        ({"args": ["-c", "print('{}')"]}, "printed no ExecCredential"),
        ({"args": ["-c", "import time; time.sleep(60)"]}, "did not finish within"),
        ({"interactiveMode": "Always"}, "nobody is there to answer"),
        ({"apiVersion": "client.authentication.k8s.io/v1alpha1"}, "is not one of"),
    ],
)
async def test_a_plugin_that_fails_is_reported_in_words(
    server: MisbehavingServer,
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    said: str,
) -> None:
    monkeypatch.setattr(plugin, "_LIMIT", 0.5)
    user = exec_user(tmp_path, {"token": "exec"})
    user["exec"] |= change
    async with Client(ClusterAccess(inline=kubeconfig(server, authority, user))) as client:
        with pytest.raises(Unreachable, match=said) as caught:
            await client.version()
    assert not caught.value.sent


async def test_a_refused_token_is_read_again_but_not_at_every_request(
    server: MisbehavingServer, authority: Authority, tmp_path: Path
) -> None:
    server.always["/version"] = _only_for("Bearer good")
    config = tmp_path / "config"
    config.write_text(kubeconfig(server, authority, {"token": "bad"}))
    async with Client(ClusterAccess(path=str(config))) as client:
        with pytest.raises(Refused):
            await client.version()
        config.write_text(kubeconfig(server, authority, {"token": "good"}))
        with pytest.raises(Refused):
            await client.version()
        client.time.seconds += 10
        await client.version()


def _only_for(authorization: str) -> Fault:
    async def fault(request: Request, reply: Reply) -> None:
        good = request.headers.get("authorization") == authorization
        await reply.json(*((200, VERSION) if good else (401, status_body(401, "Unauthorized"))))

    return fault


async def test_a_missing_kubeconfig_is_looked_for_again(
    server: MisbehavingServer, authority: Authority, tmp_path: Path
) -> None:
    config = tmp_path / "later"
    async with Client(ClusterAccess(path=str(config))) as client:
        with pytest.raises(Unreachable, match="No such file"):
            await client.version()
        config.write_text(kubeconfig(server, authority, {"token": "x"}))
        client.time.seconds += 10
        await client.version()


@pytest.mark.parametrize("text", ["", "[]", "{", "a: [", "\0", "current-context: x"])
async def test_what_is_no_kubeconfig_is_refused_in_words(text: str) -> None:
    with pytest.raises(BadAccess):
        await read_access(ClusterAccess(inline=text, context="x"), datetime.now(UTC))


async def test_redirects_are_not_followed(server: MisbehavingServer, authority: Authority) -> None:
    server.always["/version"] = answers(302, headers={"Location": "/elsewhere"})
    async with Client(ClusterAccess(inline=kubeconfig(server, authority, {"token": "secret"}))) as client:
        with pytest.raises(Refused):
            await client.version()
    assert [one.path for one in server.requests] == ["/version"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "127.1"])
async def test_an_uploaded_kubeconfig_connects_to_no_private_address(
    server: MisbehavingServer, authority: Authority, host: str
) -> None:
    """Checked when connecting, so that a name that changes its address after the upload is refused too."""
    text = kubeconfig(server, authority, {"token": "t"}, address=f"https://{host}:{server.port}")
    async with Client(ClusterAccess(inline=text), guard=AddressGuard()) as client:
        with pytest.raises(Unreachable, match=r"not a public address|has not a public|no valid URL") as caught:
            await client.version()
    assert not caught.value.sent
    assert server.requests == []


@pytest.mark.parametrize("allowed", ["127.0.0.0/8", "localhost"])
async def test_an_allowed_host_is_connected_to_without_the_environments_proxy(
    server: MisbehavingServer, authority: Authority, allowed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    text = kubeconfig(server, authority, {"token": "t"}, address=f"https://localhost:{server.port}")
    async with Client(ClusterAccess(inline=text), guard=AddressGuard([allowed, "::1"])) as client:
        await client.version()
    assert len(server.requests) == 1


def test_where_memory_files_are_missing_a_private_one_is_removed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with private_file(b"key") as name:
        assert Path(name).read_bytes() == b"key"
        assert stat.S_IMODE(os.stat(name).st_mode) == 0o600
    assert not Path(name).exists()


async def test_many_requests_at_once_read_the_credentials_once(
    server: MisbehavingServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    real = connect.read_access

    async def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal reads
        reads += 1
        return await real(*args, **kwargs)

    monkeypatch.setattr(connect, "read_access", counted)
    async with Client(ClusterAccess(inline=kubeconfig(server, authority, {"token": "t"}))) as client:
        await asyncio.gather(*(client.version() for _ in range(10)))
    assert reads == 1
