"""Our further checks: image tags, default tokens, secrets in the environment, network policies, exposed Services."""

from typing import Any

import msgspec
import pytest

from opsapi.playbooks.scanning.hygiene import is_secret_name, policy_findings, service_findings, template_findings
from opsapi.playbooks.scanning.model import Evidence, Finding, Where
from opsapi.workspaces.writing import JsonObject
from support.security import hardened, placed

WEB = Where(kind="Deployment", namespace="shop", name="web")


def found(template: JsonObject, mounts_default: bool | None = None) -> dict[str, Finding]:
    return {one.check: one for one in template_findings("ws-123", WEB, placed(template), mounts_default)}


@pytest.mark.parametrize(("image", "bad"), [("nginx", True), ("nginx:latest", True), ("nginx:1.27", False),
                                            ("nginx:latest@sha256:ab", False), ("r.io:5000/a", True)])  # fmt: skip
def test_an_image_without_a_version_is_found(image: str, bad: bool) -> None:
    held = found(hardened(app={"image": image}))
    assert ("mutable-image-tag" in held) is bad
    if bad:
        evidence = held["mutable-image-tag"].evidence
        assert evidence == (Evidence("$.spec.template.spec.containers[0].image", image),)
        assert held["mutable-image-tag"].resource.container == "app"


@pytest.mark.parametrize(
    ("spec", "account", "bad"),
    [
        ({}, None, True),
        ({}, False, False),
        ({"automountServiceAccountToken": True}, False, True),
        ({"automountServiceAccountToken": False}, True, False),
        ({"serviceAccountName": "web"}, None, False),
        ({"serviceAccountName": "default"}, True, True),
    ],
)
def test_a_pod_mounts_the_default_token_unless_it_or_its_account_says_no(
    spec: dict[str, Any], account: bool | None, bad: bool
) -> None:
    template = hardened()
    del template["spec"]["automountServiceAccountToken"]
    template["spec"] |= spec
    assert ("default-service-account-token" in found(template, account)) is bad


def test_a_secret_in_the_environment_is_named_and_its_value_shown_nowhere() -> None:
    env = [
        {"name": "DB_PASSWORD", "value": "hunter2"},
        {"name": "LOG_LEVEL", "value": "debug"},
        {"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "TOKEN", "value": "$(OTHER)"},
        {"name": "SECRET", "value": ""},
        {"name": "stripe-api-key", "value": "sk_live_x"},
    ]
    held = found(hardened(app={"env": env}))["secret-in-environment"]
    assert held.evidence == (
        Evidence("$.spec.template.spec.containers[0].env[0].name", "DB_PASSWORD"),
        Evidence("$.spec.template.spec.containers[0].env[5].name", "stripe-api-key"),
    )
    written = msgspec.json.encode(held)
    assert b"hunter2" not in written
    assert b"sk_live" not in written


@pytest.mark.parametrize("name", ["PASSWORD", "db.password", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "MYSQL_PWD"])
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["PASSWORD_FILE", "TOKEN_URL", "AWS_SECRET_NAME", "PWD_HASHER", "KEYBOARD", "PATH"])
def test_names_that_only_lead_to_secrets_are_not_taken_for_them(name: str) -> None:
    assert not is_secret_name(name)


def test_namespaces_with_pods_and_no_policy_are_found_but_for_those_of_kubernetes() -> None:
    policies = [{"metadata": {"name": "deny", "namespace": "pay"}}]
    held = list(policy_findings("ws-123", ["shop", "pay", "kube-system", "shop"], policies))
    assert [one.resource for one in held] == [Where(kind="Namespace", namespace="shop", name="shop")]


def test_services_that_reach_outside_are_found_with_their_ports() -> None:
    meta = {"namespace": "shop"}
    services: list[JsonObject] = [
        {"metadata": meta | {"name": "a"}, "spec": {"type": "ClusterIP"}},
        {"metadata": meta | {"name": "b"}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}},
        {
            "metadata": meta | {"name": "c"},
            "spec": {"type": "LoadBalancer", "ports": [{"port": 443}], "loadBalancerSourceRanges": ["10.0.0.0/8"]},
        },
    ]
    held = list(service_findings("ws-123", services))
    assert [one.resource.name for one in held] == ["b", "c"]
    assert held[0].evidence[1] == Evidence("$.spec.ports", "[30080]")
    assert held[1].evidence[2] == Evidence("$.spec.loadBalancerSourceRanges", '["10.0.0.0/8"]')
