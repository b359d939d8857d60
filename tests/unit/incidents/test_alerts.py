"""POST /alerts: whose workspace an alert is of, which application it means, and whatever hostile senders make of it."""

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsapi.incidents.alertmanager import MAX_LABELS, MAX_NAME, MAX_VALUE, AlertsBody, WireAlert, alert_of, severity_of
from opsapi.incidents.examples import ALERTS
from opsapi.incidents.matching import Matcher
from opsapi.incidents.model import AlertStatus, Severity
from opsapi.incidents.settings import IncidentSettings
from opsapi.kit.errors import ValidationFailed
from opsapi.kit.text import one_line
from opsapi.workspaces.application_ids import APPLICATION_ID_LABEL, application_id
from opsapi.workspaces.objects import (
    CRON_JOB,
    DEPLOYMENT,
    JOB,
    POD,
    REPLICA_SET,
    SERVICE,
    CronJob,
    Job,
    Kind,
    ObjectMeta,
    OwnerReference,
    Pod,
    Service,
    ServiceSpec,
    Workload,
    WorkloadMeta,
)
from support.acting import NOON
from support.inventory import FakeCluster, FakeInventory, make_workspace
from support.remediation import Emergency, payload, wire
from support.workloads import make_deployment

BOUND = "incident:write@ws-123"


def own(kind: str, name: str) -> tuple[OwnerReference, ...]:
    return (OwnerReference(kind=kind, name=name, uid=f"uid-{name}", controller=True),)


def shop(**workspace: Any) -> FakeCluster:
    inventory = FakeInventory()
    inventory.put(DEPLOYMENT, make_deployment("web"), make_deployment("other", namespace="back"))
    meta = WorkloadMeta(
        name="web-5dd8fd58bc", namespace="shop", uid="uid-rs", owner_references=own("Deployment", "web")
    )
    inventory.put(REPLICA_SET, Workload(metadata=meta))
    owners = own("ReplicaSet", "web-5dd8fd58bc")
    inventory.put(POD, Pod(metadata=ObjectMeta(name="web-5dd8fd58bc-x", namespace="shop", owner_references=owners)))
    inventory.put(POD, Pod(metadata=ObjectMeta(name="lonely", namespace="shop")))
    inventory.put(CRON_JOB, CronJob(metadata=WorkloadMeta(name="night", namespace="shop", uid="uid-night")))
    inventory.put(
        JOB, Job(metadata=ObjectMeta(name="night-1", namespace="shop", owner_references=own("CronJob", "night")))
    )
    inventory.put(
        SERVICE,
        Service(metadata=ObjectMeta(name="front", namespace="shop"), spec=ServiceSpec(selector={"app": "web"})),
        Service(metadata=ObjectMeta(name="headless", namespace="shop"), spec=ServiceSpec()),
    )
    return FakeCluster(make_workspace(**workspace), inventory)


def placed(kind: Kind, name: str, namespace: str = "shop") -> str:
    return application_id("ws-123", kind, ObjectMeta(name=name, namespace=namespace))


WEB, NIGHT = placed(DEPLOYMENT, "web"), placed(CRON_JOB, "night")


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ({"namespace": "shop", "deployment": "web"}, WEB),
        ({"namespace": "shop", "replicaset": "web-5dd8fd58bc"}, WEB),
        ({"namespace": "shop", "pod": "web-5dd8fd58bc-x"}, WEB),
        ({"namespace": "shop", "pod": "web-77f9c5d6b4-abcde"}, WEB),
        ({"namespace": "monitoring", "pod": "exporter", "exported_namespace": "shop", "deployment": "web"}, WEB),
        ({"namespace": "shop", "service": "front"}, WEB),
        ({"namespace": "shop", "container": "web"}, WEB),
        ({"namespace": "shop", "app_kubernetes_io_name": "web"}, WEB),
        ({"namespace": "shop", "cronjob": "night"}, NIGHT),
        ({"namespace": "shop", "job_name": "night-1"}, NIGHT),
        ({"application_id": WEB}, WEB),
        ({"application_id": "app-elsewhere", "namespace": "shop"}, None),
        ({"namespace": "shop", "pod": "lonely"}, None),
        ({"namespace": "shop", "service": "headless"}, None),
        ({"namespace": "shop", "deployment": "other"}, None),
        ({"namespace": "nowhere", "deployment": "web"}, None),
        ({"deployment": "web"}, None),
        ({"namespace": "shop"}, None),
        ({"namespace": "", "deployment": ""}, None),
        ({}, None),
    ],
)
def test_labels_lead_to_what_stands_in_the_workspace_or_nowhere(labels: dict[str, str], found: str | None) -> None:
    assert Matcher(shop()).application(labels) == found


def test_namespaces_out_of_the_workspaces_scope_are_not_looked_into() -> None:
    matcher = Matcher(shop(namespaces=("back",)))
    assert matcher.application({"namespace": "shop", "deployment": "web"}) is None
    assert matcher.application({"application_id": WEB}) is None
    assert matcher.application({"namespace": "back", "deployment": "other"}) is not None


def test_an_id_that_two_applications_claim_is_nobodys() -> None:
    cluster = shop()
    labels = {APPLICATION_ID_LABEL: "app-mine"}
    cluster.fake.put(DEPLOYMENT, make_deployment("one", labels=labels), make_deployment("two", labels=labels))
    assert Matcher(cluster).application({"application_id": "app-mine"}) is None


@given(st.dictionaries(st.text(), st.text()))
def test_whatever_labels_say_nothing_outside_the_workspace_is_found(labels: dict[str, str]) -> None:
    assert Matcher(shop()).application(labels) in (WEB, NIGHT, None)


@pytest.mark.parametrize(
    ("word", "severity"),
    [
        ("critical", Severity.CRITICAL),
        (" PAGE ", Severity.CRITICAL),
        ("error", Severity.HIGH),
        ("warning", Severity.MEDIUM),
        ("info", Severity.LOW),
        ("whatever", Severity.MEDIUM),
        ("", Severity.MEDIUM),
    ],
)
def test_words_of_severity_have_a_meaning_and_unknown_ones_the_middle_one(word: str, severity: Severity) -> None:
    assert severity_of({"severity": word}, "severity") is severity
    assert severity_of({}, "severity") is Severity.MEDIUM


async def test_an_alert_of_a_bound_account_opens_an_incident_in_its_workspace(emergency: Emergency) -> None:
    emergency.deploy()
    reply = await emergency.alert(payload(wire(deployment="web")))
    assert (reply.data.accepted, reply.data.rejected) == (1, [])
    told = (await emergency.look_at(reply.data.incidents[0].incident_id)).data
    assert (told.workspace_id, told.severity, told.title) == ("ws-123", "critical", "Errors in the shop")
    assert told.alerts[0].application_id == told.affected_applications[0]
    assert told.source == "alertmanager"


async def test_a_repeat_answers_the_same_and_is_no_change(emergency: Emergency) -> None:
    first = await emergency.alert(payload(wire()))
    again = await emergency.alert(payload(wire()))
    assert again.data == first.data
    ended = await emergency.alert(payload(wire("resolved")))
    assert [one.state for one in ended.data.incidents] == ["resolved"]


async def test_a_label_names_the_workspace_only_where_it_is_configured_and_granted(emergency: Emergency) -> None:
    emergency.clusters.opened["ws-other"] = FakeCluster(make_workspace("ws-other"))
    named = payload(wire(workspace="ws-other"))
    not_believed = await emergency.alert(named, BOUND)
    incident = (await emergency.look_at(not_believed.data.incidents[0].incident_id)).data
    assert incident.workspace_id == "ws-123"
    emergency.settings = IncidentSettings(workspace_label="workspace")
    emergency.arrange()
    emergency.clusters.opened["ws-other"] = FakeCluster(make_workspace("ws-other"))
    with pytest.raises(ValidationFailed) as refused:
        await emergency.alert(named, BOUND)
    assert list(msgspec.to_builtins(refused.value.details)["fields"]) == ["alerts[0].labels"]
    both = await emergency.alert(named, BOUND, "incident:write@ws-other")
    there = (await emergency.look_at(both.data.incidents[0].incident_id)).data
    assert there.workspace_id == "ws-other"
    everywhere = await emergency.alert(named, "incident:write")
    assert everywhere.data.incidents == both.data.incidents


@pytest.mark.parametrize("permissions", [("incident:write",), (BOUND, "incident:write@ws-other"), ("incident:read",)])
async def test_without_a_label_an_account_that_is_not_bound_to_one_workspace_is_refused(
    emergency: Emergency, permissions: tuple[str, ...]
) -> None:
    with pytest.raises(ValidationFailed):
        await emergency.alert(payload(wire(workspace="ws-123")), *permissions)


async def test_a_workspace_that_is_not_served_is_told_like_one_that_is_not_granted(emergency: Emergency) -> None:
    emergency.settings = IncidentSettings(workspace_label="workspace")
    emergency.arrange()
    reasons = []
    for permissions in (("incident:write",), (BOUND,)):
        with pytest.raises(ValidationFailed) as refused:
            await emergency.alert(payload(wire(workspace="ws-none")), *permissions)
        reasons.append(msgspec.to_builtins(refused.value.details))
    assert reasons[0] == reasons[1]


async def test_what_can_be_placed_is_taken_and_the_rest_is_named(emergency: Emergency) -> None:
    emergency.settings = IncidentSettings(workspace_label="workspace")
    emergency.arrange()
    alerts = (wire(workspace="ws-none", fingerprint="00000000"), wire(workspace="ws-123", fingerprint="00000001"))
    reply = await emergency.alert(payload(*alerts), "incident:write")
    assert (reply.data.accepted, [one.index for one in reply.data.rejected]) == (1, [0])
    assert reply.warnings == ["1 alerts name no workspace that this account may report in"]


async def test_more_alerts_than_are_taken_are_refused_with_what_to_do(emergency: Emergency) -> None:
    emergency.settings = IncidentSettings(max_alerts=3)
    emergency.arrange()
    alerts = [wire(fingerprint=f"{number:08x}") for number in range(4)]
    with pytest.raises(ValidationFailed, match="max_alerts"):
        await emergency.alert(payload(*alerts))
    assert (await emergency.alert(payload(*alerts[:3]))).data.accepted == 3


async def test_a_notification_without_alerts_changes_nothing(emergency: Emergency) -> None:
    assert (await emergency.alert(payload())).data.incidents == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": "3"},
        {"version": 4},
        {"groupKey": ""},
        {"groupKey": None},
        {"alerts": "none"},
        {"alerts": [{}]},
        {"alerts": [wire() | {"labels": {"severity": 3}}]},
        {"alerts": [wire() | {"labels": ["severity"]}]},
        {"alerts": [wire() | {"labels": {"a": "x" * 70_000}}]},
        {"alerts": [wire() | {"status": "maybe"}]},
        {"alerts": [wire() | {"startsAt": "yesterday"}]},
        {"alerts": [wire() | {"startsAt": "2024-01-20T11:59:00"}]},
        {"truncatedAlerts": -1},
    ],
)
def test_what_is_no_payload_of_alertmanager_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(payload(wire()) | wrong, AlertsBody)


def test_fields_that_later_versions_add_are_passed_over() -> None:
    body = payload(wire() | {"notification": 1}) | {"notificationReason": "first"}
    assert len(msgspec.convert(body, AlertsBody).alerts) == 1


def test_the_documented_example_is_a_payload() -> None:
    assert msgspec.convert(ALERTS, AlertsBody).alerts[0].fingerprint == "c4ca4238a0b92382"


def test_an_alert_is_made_harmless_and_keeps_what_tells_its_application() -> None:
    labels = {f"a{number:03}": "x" * 5000 for number in range(200)}
    labels |= {"namespace": "shop\n\x1b[2J", "alertname": "A\u2028B", "x" * 500: "long"}
    made = msgspec.convert(wire() | {"labels": labels, "fingerprint": "../../etc"}, WireAlert)
    alert = alert_of(made, "severity", None, NOON)
    assert len(alert.labels) == MAX_LABELS
    assert alert.labels["namespace"] == "shop [2J"
    assert alert.labels["alertname"] == "A B"
    assert max(map(len, alert.labels)) <= MAX_NAME
    assert max(map(len, alert.labels.values())) == MAX_VALUE
    assert len(alert.fingerprint) == 32
    assert alert.fingerprint == alert_of(made, "severity", None, NOON).fingerprint


@pytest.mark.parametrize(
    ("starts", "ends"),
    [
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59-14:00"),
        ("2099-01-01T00:00:00Z", "1990-01-01T00:00:00Z"),
        ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z"),
    ],
)
@pytest.mark.parametrize("status", ["firing", "resolved"])
def test_moments_of_broken_clocks_become_ones_that_can_be(status: str, starts: str, ends: str) -> None:
    made = msgspec.convert(wire(status) | {"startsAt": starts, "endsAt": ends}, WireAlert)
    alert = alert_of(made, "severity", None, NOON)
    assert alert.starts_at <= NOON
    if status == "firing":
        assert alert.ends_at is None
    else:
        assert alert.ends_at is not None
        assert alert.starts_at <= alert.ends_at <= NOON


TEXTS = st.text(max_size=40).filter(lambda text: "\0" not in text)
WIRES = st.fixed_dictionaries(
    {
        "status": st.sampled_from(("firing", "resolved")),
        "labels": st.dictionaries(TEXTS | st.sampled_from(("namespace", "pod", "severity", "deployment")), TEXTS),
        "annotations": st.dictionaries(TEXTS | st.just("summary"), TEXTS),
        "startsAt": st.sampled_from(("2024-01-20T11:59:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00")),
        "endsAt": st.sampled_from(("2024-01-20T11:59:30Z", "0001-01-01T00:00:00Z")),
        "fingerprint": st.sampled_from(("", "0123456789abcdef", "00000001", "x")) | TEXTS,
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(WIRES, max_size=4), TEXTS.filter(bool), st.integers(0, 2))
async def test_whatever_strings_it_holds_a_payload_is_taken_twice_with_one_effect(
    emergency: Emergency, alerts: list[dict[str, Any]], group: str, truncated: int
) -> None:
    body = payload(*alerts, groupKey=group, truncatedAlerts=truncated)
    first = await emergency.alert(body)
    again = await emergency.alert(body)
    known = {one.incident_id for one in first.data.incidents}
    assert {one.incident_id for one in again.data.incidents} <= known
    for one in first.data.incidents:
        told = (await emergency.look_at(one.incident_id)).data
        assert told.title == one_line(told.title)
        assert len(told.title) <= 300
        for alert in told.alerts:
            assert alert.status in set(AlertStatus)
            assert all(text == (one_line(text) or "") for text in alert.labels.values())
