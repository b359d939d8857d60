"""What an uploaded kubeconfig may hold, and that every refusal names its key and what to do."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from opsapi.adapters.kubernetes.addresses import AddressGuard
from opsapi.adapters.kubernetes.upload import MAX_BYTES, check_upload
from opsapi.workspaces.errors import UnusableKubeconfig
from opsapi.workspaces.model import ClusterAccess
from support.certificates import Authority, encoded

NOW = datetime.now(UTC)
AUTHORITY = Authority()
CA = encoded(AUTHORITY.pem)
SERVER = "kubeconfig.clusters[].cluster.server"
CLUSTER = "kubeconfig.clusters[].cluster"
USER = "kubeconfig.users[].user"


def document(user: dict[str, Any] | None = None, **cluster: Any) -> dict[str, Any]:
    held = {"server": "https://203.0.114.7:6443", "certificate-authority-data": CA} | cluster
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "main",
        "contexts": [
            {"name": "main", "context": {"cluster": "one", "user": "me", "namespace": "shop"}},
            {"name": "spare", "context": {"cluster": "one", "user": "you"}},
        ],
        "clusters": [{"name": "one", "cluster": {k: v for k, v in held.items() if v is not None}}],
        "users": [
            {"name": "me", "user": {"token": "mine"} if user is None else user},
            {"name": "you", "user": {"token": "your-secret"}},
        ],
    }


async def check(
    held: dict[str, Any] | str, context: str = "", allow: tuple[str, ...] = (), now: datetime = NOW
) -> ClusterAccess:
    text = held if isinstance(held, str) else yaml.safe_dump(held)
    return await check_upload(text, context, guard=AddressGuard(allow), now=now)


async def refused(held: dict[str, Any] | str, context: str = "", allow: tuple[str, ...] = ()) -> dict[str, str]:
    with pytest.raises(UnusableKubeconfig) as caught:
        await check(held, context, allow)
    fields: dict[str, str] = caught.value.details.fields  # type: ignore[attr-defined]
    return fields


async def test_a_good_one_is_cut_down_to_its_context() -> None:
    access = await check(document())
    kept = yaml.safe_load(access.inline)
    assert access.context == "main"
    assert [user["user"] for user in kept["users"]] == [{"token": "mine"}]
    assert "your-secret" not in access.inline
    again = await check(access.inline, access.context)
    assert again == access


async def test_the_context_can_be_chosen_and_an_unknown_one_is_named() -> None:
    assert "your-secret" in (await check(document(), "spare")).inline
    assert "no context 'nosuch'" in (await refused(document(), "nosuch"))["context"]


@pytest.mark.parametrize(
    ("key", "value", "advice"),
    [
        ("exec", {"command": "aws"}, "ServiceAccount"),
        ("auth-provider", {"name": "gcp"}, "ServiceAccount"),
        ("client-certificate", "/etc/passwd", "--flatten"),
        ("client-key", "/etc/shadow", "--flatten"),
        ("tokenFile", "/var/run/secrets/kubernetes.io/serviceaccount/token", "`token`"),
        ("username", "admin", "token"),
        ("as", "system:admin", "remove it"),
        ("as-groups", ["system:masters"], "remove it"),
    ],
)
async def test_what_would_run_read_or_impersonate_is_refused(key: str, value: object, advice: str) -> None:
    fields = await refused(document({"token": "mine", key: value}))
    assert list(fields) == [f"{USER}.{key}"]
    assert advice in fields[f"{USER}.{key}"]


@pytest.mark.parametrize(
    ("key", "value", "advice"),
    [
        ("certificate-authority", "/etc/ssl/ca.pem", "--flatten"),
        ("insecure-skip-tls-verify", True, "must be verified"),
        ("proxy-url", "http://proxy:3128", "not allowed"),
        ("certificate-authority-data", "bm90IGEgY2VydA==", "no PEM certificate"),
        ("certificate-authority-data", "%%%", "no PEM certificate"),
    ],
)
async def test_what_would_weaken_the_connection_is_refused(key: str, value: object, advice: str) -> None:
    change: dict[str, Any] = {key: value}
    fields = await refused(document(**change))
    assert list(fields) == [f"{CLUSTER}.{key}"]
    assert advice in fields[f"{CLUSTER}.{key}"]


async def test_an_explicit_no_to_skipping_tls_is_fine() -> None:
    change: dict[str, Any] = {"insecure-skip-tls-verify": False}
    await check(document(**change))


async def test_every_offence_is_told_at_once() -> None:
    fields = await refused(
        document({"exec": {}, "tokenFile": "x"}, server="http://10.0.0.1", **{"proxy-url": "http://p"})
    )
    assert set(fields) >= {f"{USER}.tokenFile", SERVER, f"{CLUSTER}.proxy-url"}


@pytest.mark.parametrize(
    "server",
    [
        "https://127.0.0.1:6443",
        "https://localhost",
        "https://10.1.2.3",
        "https://172.16.0.1",
        "https://192.168.1.1",
        "https://169.254.169.254",
        "https://168.63.129.16",
        "https://100.64.0.1",
        "https://0.0.0.0",
        "https://224.0.0.1",
        "https://[::1]",
        "https://[fe80::1]",
        "https://[fd00:ec2::254]",
        "https://[::ffff:127.0.0.1]",
        "https://[64:ff9b::7f00:1]",
        "https://[2002:7f00:1::]",
    ],
)
async def test_a_server_on_a_private_address_is_refused(server: str) -> None:
    assert "kubernetes.upload_allow" in (await refused(document(server=server)))[SERVER]


@pytest.mark.parametrize(
    "server",
    [
        "ftp://203.0.114.7",
        "203.0.114.7:6443",
        "https://",
        "https://me:secret@203.0.114.7",
        "https://203.0.114.7/?a=b",
        "https://203.0.114.7/#x",
        "https://203.0.114.7:notaport",
        "http://203.0.114.7",
        "https://" + "a" * 64 + ".invalid",
        "file:///etc/passwd",
    ],
)
async def test_a_server_that_is_no_plain_https_url_is_refused(server: str) -> None:
    assert set(await refused(document(server=server))) == {SERVER}


async def test_the_operator_can_allow_hosts_and_networks() -> None:
    await check(document(server="https://10.1.2.3"), allow=("10.0.0.0/8",))
    await check(document(server="https://localhost:6443"), allow=("LOCALHOST",))
    await check(document(server="http://127.0.0.1:8080"), allow=("127.0.0.1",))
    assert SERVER in await refused(document(server="https://10.1.2.3"), allow=("10.2.0.0/16",))


async def test_a_client_certificate_must_be_in_force_and_fit_its_key() -> None:
    good = AUTHORITY.issue("me")
    other = AUTHORITY.issue("other")
    old = AUTHORITY.issue("me", ends=NOW - timedelta(days=1))
    early = AUTHORITY.issue("me", begins=NOW + timedelta(days=1))

    def user(certificate: bytes, key: bytes) -> dict[str, str]:
        return {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}

    await check(document(user(good.certificate, good.key)))
    for held, key, said in (
        (user(old.certificate, old.key), "client-certificate-data", "expired on"),
        (user(early.certificate, early.key), "client-certificate-data", "not valid before"),
        (user(good.certificate, other.key), "client-key-data", "does not belong"),
        (user(good.certificate, b"nonsense"), "client-key-data", "no PEM private key"),
        (user(b"nonsense", good.key), "client-certificate-data", "no PEM certificate"),
        ({"client-certificate-data": encoded(good.certificate)}, "client-key-data", "is missing"),
    ):
        assert said in (await refused(document(held)))[f"{USER}.{key}"]


def _token(claims: dict[str, Any]) -> str:
    return ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, claims, 1)
    )


async def test_an_expired_token_is_refused_and_a_living_one_is_not() -> None:
    await check(document({"token": _token({"exp": NOW.timestamp() + 60})}))
    await check(document({"token": "opaque.but.fine"}))
    fields = await refused(document({"token": _token({"exp": NOW.timestamp() - 60})}))
    assert "has expired" in fields[f"{USER}.token"]
    assert "characters" in (await refused(document({"token": "a b"})))[f"{USER}.token"]


async def test_without_credentials_there_is_nothing_to_register() -> None:
    assert "no credentials" in (await refused(document({})))[USER]


BOMB = "a: &a [x, x]\n" + "\n".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]" for n in range(20)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "anchors and aliases"),
        ("[" * 5000, "deeper"),
        ("a: " * 50, "YAML"),
        ("x" * (MAX_BYTES + 1), "larger than"),
        ("- " * 3000 + "x", "deeper"),
        ("just text", "no mapping"),
        ("{}", "context"),
        ("!!python/object/apply:os.system [id]", "YAML"),
        ("\0", "YAML"),
        ("a: [", "YAML"),
    ],
)
async def test_yaml_that_is_a_bomb_or_no_kubeconfig_is_refused(text: str, said: str) -> None:
    assert said in " ".join((await refused(text)).values())


_TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=12,
)


@given(
    broken=st.dictionaries(st.sampled_from(["contexts", "clusters", "users", "current-context"]), _TREES),
    user=_TREES,
    cluster=_TREES,
)
@settings(max_examples=150, deadline=None)
async def test_whatever_comes_is_either_refused_or_good(broken: dict[str, Any], user: Any, cluster: Any) -> None:
    held = document()
    held["users"][0]["user"] = user
    if isinstance(cluster, dict):
        held["clusters"][0]["cluster"] |= cluster
    try:
        access = await check(held | broken)
    except UnusableKubeconfig:
        return
    assert yaml.safe_load(access.inline)["current-context"] == access.context
