"""An object on its way into a backup and out of it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.backups.manifests import cleaned, copied_snapshot, from_snapshot, inert, placed
from opsapi.backups.model import INERT_NODE, RESTORED_BY, RESTORED_REPLICAS, Snapshot
from opsapi.workspaces.writing import JsonObject


def an_object(kind: str = "ConfigMap", spec: Any = None, **meta: Any) -> JsonObject:
    held: JsonObject = {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "u-1", "resourceVersion": "7", "generation": 3,
            "creationTimestamp": "2024-01-20T15:30:00Z", "managedFields": [{"manager": "kubectl"}],
            "ownerReferences": [{"kind": "ScaledObject", "name": "x", "uid": "y"}], "finalizers": ["a/b"],
            "selfLink": "/x", "generateName": "web-", "labels": {"app": "web"},
        } | meta,
        "status": {"phase": "Bound"},
    }  # fmt: skip
    if spec is not None:
        held["spec"] = spec
    return held


def test_only_what_somebody_would_write_is_kept() -> None:
    held = an_object(annotations={"kubectl.kubernetes.io/last-applied-configuration": "{}", "team": "a"})
    held["data"] = {"key": "value"}
    assert cleaned(held) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}, "annotations": {"team": "a"}},
        "data": {"key": "value"},
    }


def test_the_original_is_not_touched() -> None:
    held = an_object("Service", {"clusterIP": "10.0.0.1", "ports": [{"port": 80, "nodePort": 30000}]})
    cleaned(held)
    assert held["spec"]["clusterIP"] == "10.0.0.1"
    assert held["spec"]["ports"] == [{"port": 80, "nodePort": 30000}]


def test_a_services_addresses_are_given_out_anew_and_a_headless_one_stays_headless() -> None:
    held = an_object(
        "Service",
        {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "type": "NodePort", "healthCheckNodePort": 31000,
         "ports": [{"port": 80, "nodePort": 30000}], "selector": {"app": "web"}},
    )  # fmt: skip
    assert cleaned(held)["spec"] == {"type": "NodePort", "ports": [{"port": 80}], "selector": {"app": "web"}}
    headless = an_object("Service", {"clusterIP": "None", "clusterIPs": ["None"]})
    assert cleaned(headless)["spec"] == {"clusterIP": "None"}


def test_a_claim_is_bound_to_nothing_any_more() -> None:
    annotations = {"pv.kubernetes.io/bind-completed": "yes", "volume.kubernetes.io/selected-node": "node-1"}
    spec = {"volumeName": "pv-1", "dataSource": {"name": "old"}, "storageClassName": "fast", "resources": {}}
    made = cleaned(an_object("PersistentVolumeClaim", spec, annotations=annotations))
    assert made["spec"] == {"storageClassName": "fast", "resources": {}}
    assert "annotations" not in made["metadata"]


def test_an_accounts_old_tokens_are_forgotten() -> None:
    held = an_object("ServiceAccount") | {"secrets": [{"name": "token-1"}], "imagePullSecrets": [{"name": "pull"}]}
    made = cleaned(held)
    assert "secrets" not in made
    assert made["imagePullSecrets"] == [{"name": "pull"}]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@given(
    kind=st.sampled_from(["ConfigMap", "Service", "Deployment", "StatefulSet", "PersistentVolumeClaim", "Ingress"]),
    spec=st.dictionaries(st.text(max_size=10), JSON, max_size=4),
    data=st.dictionaries(st.text(max_size=10), st.text(max_size=20), max_size=4),
)
def test_cleaning_twice_is_cleaning_once(kind: str, spec: Any, data: Any) -> None:
    spec = {key: value for key, value in spec.items() if key not in ("template", "volumeClaimTemplates", "ports")}
    once = cleaned(an_object(kind, spec) | {"data": data})
    assert cleaned(once) == once
    assert once["data"] == data
    assert "status" not in once
    assert set(once["metadata"]) <= {"name", "namespace", "labels", "annotations"}


# inert


def test_workloads_arrive_with_nothing_running_and_remember_their_replicas() -> None:
    made = inert(an_object("Deployment", {"replicas": 3}))
    assert made is not None
    assert made["spec"]["replicas"] == 0
    assert made["metadata"]["annotations"][RESTORED_REPLICAS] == "3"
    default = inert(an_object("StatefulSet", {}))
    assert default is not None
    assert (default["spec"]["replicas"], default["metadata"]["annotations"][RESTORED_REPLICAS]) == (0, "1")


def test_a_daemonset_waits_for_a_node_that_there_is_not() -> None:
    made = inert(an_object("DaemonSet", {"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}))
    assert made is not None
    assert made["spec"]["template"]["spec"]["nodeSelector"] == {"disk": "ssd", INERT_NODE: "true"}


def test_a_cronjob_is_suspended() -> None:
    made = inert(an_object("CronJob", {"schedule": "* * * * *", "suspend": False}))
    assert made is not None
    assert made["spec"] == {"schedule": "* * * * *", "suspend": True}


@pytest.mark.parametrize("kind", ["Ingress", "HorizontalPodAutoscaler"])
def test_what_lets_traffic_in_or_scales_is_left_out(kind: str) -> None:
    assert inert(an_object(kind, {})) is None


@pytest.mark.parametrize("kind", ["LoadBalancer", "NodePort", "ClusterIP"])
def test_services_are_reached_from_within_alone(kind: str) -> None:
    spec = {"type": kind, "externalIPs": ["1.2.3.4"], "loadBalancerIP": "1.2.3.4", "externalTrafficPolicy": "Local",
            "loadBalancerSourceRanges": ["10.0.0.0/8"], "ports": [{"port": 80}]}  # fmt: skip
    made = inert(an_object("Service", spec))
    assert made is not None
    assert made["spec"] == {"type": "ClusterIP", "ports": [{"port": 80}]}


@pytest.mark.parametrize("kind", ["ConfigMap", "Secret", "PersistentVolumeClaim", "PodDisruptionBudget"])
def test_what_does_nothing_by_itself_arrives_as_it_was(kind: str) -> None:
    held = an_object(kind, {"a": 1})
    assert inert(held) == held


# placed


def test_what_is_restored_in_its_own_namespace_keeps_its_marks_and_bears_the_operations() -> None:
    marks = {"argocd.argoproj.io/instance": "shop", "hexabase.ai/application-id": "app-1"}
    made = placed(cleaned(an_object(labels=marks)), "shop", "op-1")
    assert made["metadata"]["labels"] == marks
    assert made["metadata"]["annotations"] == {RESTORED_BY: "op-1"}


def test_a_copy_elsewhere_is_nobodys_and_not_the_original() -> None:
    marks = {
        "argocd.argoproj.io/instance": "shop",
        "kustomize.toolkit.fluxcd.io/name": "shop",
        "hexabase.ai/application-id": "app-1",
        "app": "web",
    }
    notes = {"argocd.argoproj.io/tracking-id": "shop:/x", "meta.helm.sh/release-name": "shop", "team": "a"}
    spec = {"template": {"metadata": {"labels": dict(marks)}}}
    made = placed(cleaned(an_object("Deployment", spec, labels=marks, annotations=notes)), "elsewhere", "op-1")
    assert made["metadata"] == {
        "name": "web",
        "namespace": "elsewhere",
        "labels": {"app": "web"},
        "annotations": {"team": "a", RESTORED_BY: "op-1"},
    }
    assert made["spec"]["template"]["metadata"]["labels"] == {"app": "web"}


# volumes


@pytest.mark.parametrize(
    ("asked", "size", "expected"), [("1Gi", "10Gi", "10Gi"), ("20Gi", "10Gi", "20Gi"), ("1Gi", None, "1Gi")]
)
def test_a_claim_is_filled_from_its_snapshot_and_never_smaller(asked: str, size: str | None, expected: str) -> None:
    claim = an_object("PersistentVolumeClaim", {"resources": {"requests": {"storage": asked}}})
    made = from_snapshot(claim, "snap-1", size)
    assert made["spec"]["dataSource"] == {
        "apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "snap-1",
    }  # fmt: skip
    assert made["spec"]["resources"]["requests"]["storage"] == expected
    assert "dataSource" not in claim["spec"]


def test_a_snapshot_is_used_elsewhere_by_a_copy_that_does_not_own_it() -> None:
    snapshot = Snapshot(name="s", namespace="shop", uid="u", handle="h-1", driver="csi.example", snapshot_class="snap")
    content, copied = copied_snapshot(snapshot, "elsewhere", "opsapi-x")
    assert content["spec"] == {
        "deletionPolicy": "Retain",
        "driver": "csi.example",
        "source": {"snapshotHandle": "h-1"},
        "volumeSnapshotRef": {"kind": "VolumeSnapshot", "name": "opsapi-x", "namespace": "elsewhere"},
        "volumeSnapshotClassName": "snap",
    }
    assert copied["spec"]["source"] == {"volumeSnapshotContentName": content["metadata"]["name"]}
    assert copied["metadata"] == {"name": "opsapi-x", "namespace": "elsewhere"}
