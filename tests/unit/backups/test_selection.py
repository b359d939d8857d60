"""Which objects belong to an application."""

from typing import Any

import pytest

from opsapi.backups.selection import (
    References,
    autoscalers_of,
    budgets_of,
    certificates_of,
    ingresses_of,
    pod_labels_of,
    pull_secrets_of,
    references,
    services_of,
    template_claims,
)
from opsapi.workspaces.writing import JsonObject


def workload(spec: JsonObject | None = None, kind: str = "Deployment", **fields: Any) -> JsonObject:
    template = {"metadata": {"labels": {"app": "web", "tier": "front"}}, "spec": spec or {}}
    if kind == "CronJob":
        return {"kind": kind, "metadata": {"name": "web"}, "spec": {"jobTemplate": {"spec": {"template": template}}}}
    return {"kind": kind, "metadata": {"name": "web"}, "spec": {"template": template} | fields}


def named(name: str, **spec: Any) -> JsonObject:
    return {"metadata": {"name": name}, "spec": spec}


EVERYWHERE = {
    "volumes": [
        {"configMap": {"name": "map-volume"}},
        {"secret": {"secretName": "secret-volume"}},
        {"persistentVolumeClaim": {"claimName": "claim"}},
        {
            "projected": {
                "sources": [
                    {"configMap": {"name": "map-projected"}},
                    {"secret": {"name": "secret-projected"}},
                    {"configMap": {"name": "kube-root-ca.crt"}},
                    {"serviceAccountToken": {"path": "token"}},
                ]
            }
        },
        {"emptyDir": {}},
    ],
    "initContainers": [{"name": "init", "envFrom": [{"secretRef": {"name": "secret-init"}}]}],
    "containers": [
        {
            "name": "app",
            "envFrom": [{"configMapRef": {"name": "map-env"}}, {"secretRef": {"name": "secret-env"}}],
            "env": [
                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "map-key", "key": "k"}}},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "secret-key", "key": "k"}}},
                {"name": "C", "value": "plain"},
                {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            ],
        }
    ],
    "imagePullSecrets": [{"name": "secret-pull"}],
    "serviceAccountName": "runner",
}


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet", "CronJob"])
def test_every_place_that_names_something_is_looked_at(kind: str) -> None:
    assert references(workload(EVERYWHERE, kind)) == References(
        config_maps=("map-env", "map-key", "map-projected", "map-volume"),
        secrets=(
            "secret-env", "secret-init", "secret-key", "secret-projected", "secret-pull", "secret-volume",
        ),
        claims=("claim",),
        service_account="runner",
    )  # fmt: skip


@pytest.mark.parametrize("account", [None, "default"])
def test_the_default_account_is_every_namespaces_own(account: str | None) -> None:
    assert references(workload({"serviceAccountName": account})).service_account is None


def test_a_bare_workload_refers_to_nothing() -> None:
    assert references({"kind": "Deployment", "metadata": {"name": "x"}}) == References((), (), (), None)


def test_a_statefulsets_claims_are_known_by_template_and_ordinal_alone() -> None:
    made = workload(kind="StatefulSet", volumeClaimTemplates=[{"metadata": {"name": "data"}}])
    names = ["data-web-0", "data-web-12", "data-web-x", "data-web-", "data-webx-0", "data-web-0-old", "logs-web-0"]
    claims = [{"metadata": {"name": name}} for name in names]
    assert template_claims(made, claims) == ["data-web-0", "data-web-12"]
    assert template_claims(workload(), claims) == []


def test_a_service_belongs_to_whoever_all_of_its_selector_fits() -> None:
    services = [
        named("fits", selector={"app": "web"}),
        named("fits-more", selector={"app": "web", "tier": "front"}),
        named("other-tier", selector={"app": "web", "tier": "back"}),
        named("external", externalName="example.org"),
        named("everything", selector={}),
    ]
    assert [one["metadata"]["name"] for one in services_of(workload(), services)] == ["fits", "fits-more"]


def test_a_statefulsets_governing_service_belongs_to_it_without_a_selector() -> None:
    made = workload(kind="StatefulSet", serviceName="peers")
    assert [one["metadata"]["name"] for one in services_of(made, [named("peers"), named("x")])] == ["peers"]


def test_ingresses_are_found_by_their_backends_and_bring_their_certificates() -> None:
    def path(service: str) -> JsonObject:
        return {"http": {"paths": [{"backend": {"service": {"name": service}}}]}}

    by_rule = named("by-rule", rules=[path("other"), path("web")], tls=[{"secretName": "cert"}, {"hosts": ["x"]}])
    by_default = named("by-default", defaultBackend={"service": {"name": "web"}})
    ingresses = [
        by_rule,
        by_default,
        named("not", rules=[path("other")]),
        named("bucket", defaultBackend={"resource": {}}),
    ]
    assert ingresses_of(["web"], ingresses) == [by_rule, by_default]
    assert certificates_of([by_rule, by_default]) == ["cert"]


def test_an_autoscaler_belongs_to_what_it_scales_by_kind_and_name() -> None:
    fits = named("a", scaleTargetRef={"kind": "Deployment", "name": "web"})
    wrong = [named("b", scaleTargetRef={"kind": "StatefulSet", "name": "web"}), named("c", scaleTargetRef={})]
    assert autoscalers_of(workload(), [fits, *wrong]) == [fits]


def test_a_budget_belongs_to_the_application_unless_it_selects_everything() -> None:
    fits = named("fits", selector={"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]})
    wrong = [named("all", selector={}), named("none"), named("other", selector={"matchLabels": {"app": "x"}})]
    assert budgets_of(workload(), [fits, *wrong]) == [fits]


def test_an_accounts_pull_secrets_are_needed_as_well() -> None:
    assert pull_secrets_of({"imagePullSecrets": [{"name": "b"}, {"name": "a"}, {}]}) == ["a", "b"]


def test_pod_labels_come_from_the_template() -> None:
    assert pod_labels_of(workload()) == {"app": "web", "tier": "front"}
