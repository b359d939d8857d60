"""What refers to a ConfigMap or Secret is found wherever it stands; what is found by other means is kept."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.playbooks.cleaning.leftovers import expiry, moment
from opsapi.playbooks.cleaning.references import kept, mentioned, references
from opsapi.workspaces.writing import JsonObject

NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)


def held(spec: Any, **more: Any) -> JsonObject:
    return {"kind": "Any", "metadata": {"name": "one", "namespace": "shop"}, "spec": spec} | more


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ({"volumes": [{"configMap": {"name": "a"}}]}, ("ConfigMap", "shop", "a")),
        ({"volumes": [{"secret": {"secretName": "a"}}]}, ("Secret", "shop", "a")),
        ({"volumes": [{"projected": {"sources": [{"configMap": {"name": "a"}}]}}]}, ("ConfigMap", "shop", "a")),
        ({"volumes": [{"projected": {"sources": [{"secret": {"name": "a"}}]}}]}, ("Secret", "shop", "a")),
        ({"volumes": [{"csi": {"nodePublishSecretRef": {"name": "a"}}}]}, ("Secret", "shop", "a")),
        ({"volumes": [{"azureFile": {"secretName": "a"}}]}, ("Secret", "shop", "a")),
        ({"containers": [{"envFrom": [{"configMapRef": {"name": "a"}}]}]}, ("ConfigMap", "shop", "a")),
        ({"containers": [{"envFrom": [{"secretRef": {"name": "a"}}]}]}, ("Secret", "shop", "a")),
        (
            {"initContainers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "a", "key": "k"}}}]}]},
            ("Secret", "shop", "a"),
        ),
        (
            {"containers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "a", "key": "k"}}}]}]},
            ("ConfigMap", "shop", "a"),
        ),
        ({"imagePullSecrets": [{"name": "a"}]}, ("Secret", "shop", "a")),
        ({"tls": [{"hosts": ["x"], "secretName": "a"}]}, ("Secret", "shop", "a")),
        (
            {"listeners": [{"tls": {"certificateRefs": [{"name": "a", "namespace": "other"}]}}]},
            ("Secret", "other", "a"),
        ),
        (
            {"jobTemplate": {"spec": {"template": {"spec": {"imagePullSecrets": [{"name": "a"}]}}}}},
            ("Secret", "shop", "a"),
        ),
    ],
)
def test_each_kind_of_reference_counts(spec: JsonObject, found: tuple[str, str, str]) -> None:
    assert found in references([held(spec)])


def test_a_service_accounts_secrets_count() -> None:
    account = {"kind": "ServiceAccount", "metadata": {"name": "one", "namespace": "shop"}}
    found = references([account | {"secrets": [{"name": "a"}], "imagePullSecrets": [{"name": "b"}]}])
    assert found == {("Secret", "shop", "a"), ("Secret", "shop", "b")}


@given(NAMES, st.lists(st.sampled_from(["spec", "template", "containers", "env", "volumes"]), max_size=6))
def test_a_reference_is_found_however_deep_it_lies(name: str, path: list[str]) -> None:
    value: Any = {"configMapRef": {"name": name}}
    for step in path:
        value = [{step: value}]
    assert references([held(value)]) == {("ConfigMap", "shop", name)}


@given(NAMES)
def test_a_name_in_an_argument_or_a_variable_is_a_mention(name: str) -> None:
    container = {"args": [f"--configmap=shop/{name}"], "env": [{"name": "X", "value": f"a,{name}"}]}
    assert ("shop", name) in mentioned([held({"containers": [container]})])


@pytest.mark.parametrize(
    "body",
    [
        {"metadata": {"name": "kube-root-ca.crt"}},
        {"metadata": {"name": "sh.helm.release.v1.web.v3"}, "type": "helm.sh/release.v1"},
        {"metadata": {"name": "token"}, "type": "kubernetes.io/service-account-token"},
        {"metadata": {"name": "owned", "ownerReferences": [{"kind": "Certificate", "name": "x"}]}},
        {"metadata": {"name": "chart", "labels": {"app.kubernetes.io/managed-by": "Helm"}}},
        {"metadata": {"name": "board", "labels": {"grafana_dashboard": "1"}}},
        {"metadata": {"name": "cert", "annotations": {"cert-manager.io/certificate-name": "x"}}},
        {"metadata": {"name": "lock", "annotations": {"control-plane.alpha.kubernetes.io/leader": "{}"}}},
    ],
)
def test_what_is_found_by_other_means_is_kept(body: JsonObject) -> None:
    assert kept(body)


def test_an_ordinary_one_is_not() -> None:
    assert kept({"metadata": {"name": "settings", "labels": {"app": "web"}}, "type": "Opaque"}) == ""


@pytest.mark.parametrize(
    ("annotations", "at"),
    [
        ({"janitor/ttl": "24h"}, datetime(2024, 1, 2, tzinfo=UTC)),
        ({"janitor/ttl": "1w"}, datetime(2024, 1, 8, tzinfo=UTC)),
        ({"janitor/ttl": "forever"}, None),
        ({"janitor/ttl": "soon"}, None),
        ({"janitor/expires": "2024-03-01"}, datetime(2024, 3, 1, tzinfo=UTC)),
        ({"janitor/expires": "2024-03-01T10:30"}, datetime(2024, 3, 1, 10, 30, tzinfo=UTC)),
        ({"janitor/expires": "2024-03-01T10:30:00Z"}, datetime(2024, 3, 1, 10, 30, tzinfo=UTC)),
        ({"janitor/expires": "whenever"}, None),
        ({}, None),
    ],
)
def test_expiry_is_read_as_kube_janitor_reads_it(annotations: dict[str, str], at: datetime | None) -> None:
    body = {"metadata": {"creationTimestamp": "2024-01-01T00:00:00Z", "annotations": annotations}}
    assert expiry(body)[0] == at


@given(st.text())
def test_no_text_breaks_the_reading_of_moments(text: str) -> None:
    assert moment(text) is None or isinstance(moment(text), datetime)
    expiry({"metadata": {"creationTimestamp": text, "annotations": {"janitor/ttl": text, "janitor/expires": text}}})
