import msgspec
import pytest
import yaml

from opsapi.kit.errors import ValidationFailed
from opsapi.playbooks.scanning.gathering import NETWORK_POLICIES, PODS, SERVICE_ACCOUNTS, SERVICES, TEMPLATES
from opsapi.playbooks.scanning.reports import REPORT_KINDS
from opsapi.workspaces.access import Feature, check, features_named, manifest, rules_for
from opsapi.workspaces.model import ClusterAccess
from support.inventory import FakeCluster, make_workspace

EVERYTHING = tuple(Feature)


def documents(text: str) -> list[dict[str, object]]:
    return list(yaml.safe_load_all(text))


def rights(text: str) -> set[tuple[str, str, str]]:
    return {
        (group, resource, verb)
        for document in documents(text)
        for rule in document.get("rules", ())  # type: ignore[attr-defined]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_a_workspace_of_some_namespaces_works_with_roles_alone() -> None:
    held = documents(manifest(EVERYTHING, namespaces=("shop", "pay"), account_namespace="shop"))
    assert [document["kind"] for document in held] == ["ServiceAccount", "Role", "RoleBinding", "Role", "RoleBinding"]
    assert [d["metadata"]["namespace"] for d in held if d["kind"] == "Role"] == ["shop", "pay"]  # type: ignore[index]
    assert not any(resource == "nodes" for _, resource, _ in rights(manifest(EVERYTHING, namespaces=("shop",))))


def test_a_whole_cluster_takes_one_cluster_role() -> None:
    held = documents(manifest(EVERYTHING))
    kinds = [document["kind"] for document in held]
    assert kinds == ["Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding"]
    assert ("", "nodes", "watch") in rights(manifest(EVERYTHING))


def test_no_feature_but_the_one_named_for_them_asks_for_secrets_and_none_for_everything() -> None:
    held = rights(manifest(EVERYTHING))
    with_secrets = (Feature.CLEANUP_SECRETS, Feature.BACKUP_SECRETS, Feature.RESTORE_SECRETS)
    others = rights(manifest([feature for feature in EVERYTHING if feature not in with_secrets]))
    assert not any(resource.startswith("secrets") for _, resource, _ in others)
    assert not any("*" in right for right in held)
    assert not any(verb in ("deletecollection", "escalate", "bind", "impersonate") for *_, verb in held)
    deleting = (
        Feature.CLEANUP, Feature.CLEANUP_SECRETS, Feature.BACKUP_VOLUMES, Feature.VELERO, Feature.RESTORE,
        Feature.RESTORE_SECRETS,
    )  # fmt: skip
    acting = rights(manifest([feature for feature in EVERYTHING if feature not in deleting]))
    assert not any(verb == "delete" for *_, verb in acting)


def test_reading_alone_writes_nothing() -> None:
    assert {verb for *_, verb in rights(manifest([Feature.READ]))} == {"get", "list", "watch"}


def test_scaling_may_patch_the_scale_and_not_the_deployment() -> None:
    more = rights(manifest([Feature.READ, Feature.SCALE])) - rights(manifest([Feature.READ]))
    assert more == {
        ("apps", f"{kind}/scale", verb) for kind in ("deployments", "statefulsets") for verb in ("get", "patch")
    }


def test_scanning_only_lists_and_a_workspace_of_some_namespaces_asks_for_no_reports_of_the_cluster() -> None:
    more = rights(manifest([Feature.READ, Feature.SECURITY_SCAN])) - rights(manifest([Feature.READ]))
    assert {verb for *_, verb in more} == {"get", "list"}
    assert ("networking.k8s.io", "networkpolicies", "list") in more
    assert ("aquasecurity.github.io", "clusterrbacassessmentreports", "list") in more
    limited = rights(manifest([Feature.SECURITY_SCAN], namespaces=("shop",), cluster_wide=True))
    reports = {resource for group, resource, _ in limited if group == "aquasecurity.github.io"}
    assert "vulnerabilityreports" in reports
    assert not any(resource.startswith("cluster") for resource in reports)


def test_the_reports_that_a_scan_reads_are_those_that_its_rights_name() -> None:
    named = {(rule.resource, rule.namespaced) for rule in rules_for([Feature.SECURITY_SCAN], limited=False)}
    for kind in REPORT_KINDS:
        assert (kind.resource.plural, kind.resource.namespaced) in named
    for resource in (*TEMPLATES, PODS, SERVICES, SERVICE_ACCOUNTS, NETWORK_POLICIES):
        assert (resource.plural, True) in named


def test_an_unknown_feature_is_refused_with_those_known() -> None:
    with pytest.raises(ValidationFailed, match="autoscale-config"):
        features_named(["scale", "fly"])
    assert features_named(["scale"]) == [Feature.READ, Feature.SCALE]


async def test_a_check_names_the_missing_right_and_the_feature_it_breaks() -> None:
    cluster = FakeCluster(make_workspace(namespaces=("shop",)))
    cluster.denied = {"scale"}
    report = await check(cluster, features_named(["scale", "metrics"]))
    assert report.works == ["read", "metrics"]
    assert report.breaks == ["scale"]
    assert ("scale", "patch", "deployments.apps/scale", "shop") in {
        (m.feature, m.verb, m.resource, m.namespace) for m in report.missing
    }


async def test_separate_acting_credentials_are_asked_about_acting_alone() -> None:
    cluster = FakeCluster(make_workspace(act=ClusterAccess(path="/dev/null")))
    cluster.denied = {"scale"}
    report = await check(cluster, features_named(["scale"]))
    assert cluster.reviews == [False, True]
    assert {right.credentials for right in report.missing} == {"act"}
    assert report.works == ["read"]


def test_limited_rules_are_all_namespaced() -> None:
    assert all(rule.namespaced for rule in rules_for(EVERYTHING, limited=True))
    assert msgspec.json.encode(rules_for([Feature.READ], limited=True))
