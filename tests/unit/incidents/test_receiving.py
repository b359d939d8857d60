"""What Alertmanager's notifications become, over any sequence of them."""

import asyncio
from datetime import timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsapi.incidents.model import AlertStatus, EntryKind, Incident, Severity, State
from opsapi.incidents.ports import IncidentFilter
from opsapi.incidents.receiving import MAX_KEPT
from opsapi.incidents.transitions import acknowledge, escalate, resolve
from opsapi.kit.caller import System
from support.acting import NOON, SetClock
from support.incidents import (
    SETTINGS,
    FakeIncidents,
    ended,
    later,
    make_alert,
    make_notice,
    make_report,
    notify,
    tell,
)

BY = System("incidents", "test")


@pytest.fixture
def store() -> FakeIncidents:
    return FakeIncidents(SetClock())


def kinds(store: FakeIncidents, incident: Incident) -> list[EntryKind]:
    return [entry.kind for entry in store.kept_entries[incident.id]]


async def test_a_group_is_one_incident_titled_by_its_worst_alert(store: FakeIncidents) -> None:
    alerts = (
        make_alert("00000001", severity=Severity.LOW, annotations={"summary": "Slow"}),
        make_alert("00000002", severity=Severity.CRITICAL, annotations={"summary": "Down", "description": "All of it"}),
    )
    (incident,) = await notify(store, make_notice(*alerts), NOON)
    assert (incident.title, incident.description, incident.severity) == (
        "Down (and 1 more)",
        "All of it",
        Severity.CRITICAL,
    )
    assert (incident.type, incident.affected_applications) == ("application_failure", ("app-1",))
    assert store.kept_entries[incident.id][1].message == "2 alerts fire"


async def test_alerts_of_no_application_are_about_infrastructure(store: FakeIncidents) -> None:
    (incident,) = await notify(store, make_notice(make_alert(application_id=None)), NOON)
    assert (incident.type, incident.affected_applications) == ("infrastructure", ())


async def test_a_repeat_changes_nothing_but_when_it_was_last_heard_of(store: FakeIncidents) -> None:
    notice = make_notice(make_alert())
    (first,) = await notify(store, notice, NOON)
    (again,) = await notify(store, notice, later(60))
    assert again == msgspec.structs.replace(first, last_seen_at=later(60))
    assert len(store.audited) == 1


async def test_another_alert_of_the_group_joins_and_raises_the_severity(store: FakeIncidents) -> None:
    first = make_alert("00000001", severity=Severity.MEDIUM)
    (opened,) = await notify(store, make_notice(first), NOON)
    second = make_alert("00000002", severity=Severity.CRITICAL, application_id="app-2")
    (grown,) = await notify(store, make_notice(first, second), later(30))
    assert grown.id == opened.id
    assert (grown.severity, grown.affected_applications, grown.alerts_firing) == (
        Severity.CRITICAL,
        ("app-1", "app-2"),
        2,
    )
    assert kinds(store, grown) == [
        EntryKind.OPENED,
        EntryKind.ALERTS_FIRING,
        EntryKind.ALERTS_FIRING,
        EntryKind.SEVERITY_RAISED,
    ]


async def test_the_incident_is_resolved_once_all_its_alerts_are(store: FakeIncidents) -> None:
    one, two = make_alert("00000001"), make_alert("00000002")
    (incident,) = await notify(store, make_notice(one, two), NOON)
    (half,) = await notify(store, make_notice(ended(one), two), later(10))
    assert (half.state, half.alerts_firing) == (State.FIRING, 1)
    (over,) = await notify(store, make_notice(ended(two)), later(20))
    assert (over.id, over.state, over.resolved_by) == (incident.id, State.RESOLVED, "system:incidents")
    assert kinds(store, over)[-2:] == [EntryKind.ALERTS_RESOLVED, EntryKind.RESOLVED]
    (same,) = await notify(store, make_notice(ended(two)), later(30))
    assert same.entries == over.entries


@pytest.mark.parametrize("state", [State.ACKNOWLEDGED, State.ESCALATED])
async def test_it_is_resolved_whoever_has_seen_it(store: FakeIncidents, state: State) -> None:
    (incident,) = await notify(store, make_notice(make_alert()), NOON)
    if state is State.ACKNOWLEDGED:
        await store.change(incident.id, lambda held: acknowledge(held, "sa-1", NOON), BY)
    else:
        await store.change(incident.id, lambda held: escalate(held, "sa-1", NOON, channels=(), why="x"), BY)
    (over,) = await notify(store, make_notice(ended(make_alert())), later(20))
    assert over.state is State.RESOLVED


async def test_what_a_caller_opened_is_not_resolved_by_alerts_that_joined_it(store: FakeIncidents) -> None:
    reported = await tell(store, make_report(), NOON)
    (joined,) = await notify(store, make_notice(make_alert()), later(5))
    assert reported is not None
    assert joined.id == reported.id
    (over,) = await notify(store, make_notice(ended(make_alert())), later(20))
    assert (over.state, over.alerts_firing) == (State.FIRING, 0)


async def test_what_fires_again_soon_reopens_the_incident_and_later_opens_another(store: FakeIncidents) -> None:
    alert = make_alert()
    (first,) = await notify(store, make_notice(alert), NOON)
    await notify(store, make_notice(ended(alert)), later(10))
    (again,) = await notify(store, make_notice(alert), later(10 + SETTINGS.reopen_seconds))
    assert (again.id, again.state) == (first.id, State.FIRING)
    assert EntryKind.REOPENED in kinds(store, again)
    await notify(store, make_notice(ended(alert)), later(700))
    (other,) = await notify(store, make_notice(alert), later(701 + SETTINGS.reopen_seconds))
    assert other.id != first.id
    assert store.held[first.id].state is State.RESOLVED


async def test_what_was_never_seen_to_fire_and_is_resolved_concerns_nobody(store: FakeIncidents) -> None:
    assert await notify(store, make_notice(ended(make_alert())), NOON) == []


async def test_an_alert_that_moves_to_another_group_stays_in_its_incident(store: FakeIncidents) -> None:
    alert = make_alert(application_id=None)
    (first,) = await notify(store, make_notice(alert, group="a"), NOON)
    (again,) = await notify(store, make_notice(alert, group="b"), later(5))
    assert again.id == first.id
    (with_more,) = await notify(store, make_notice(make_alert("0000000f", application_id=None), group="b"), later(9))
    assert with_more.id == first.id


async def test_another_group_about_the_same_application_is_merged_at_once(store: FakeIncidents) -> None:
    (first,) = await notify(store, make_notice(make_alert("00000001"), group="a"), NOON)
    (same,) = await notify(store, make_notice(make_alert("00000002"), group="b"), later(60))
    assert (same.id, same.alerts_firing) == (first.id, 2)
    (beyond,) = await notify(store, make_notice(make_alert("00000003"), group="c"), later(61 + SETTINGS.merge_seconds))
    assert beyond.id != first.id


async def test_other_applications_have_incidents_of_their_own(store: FakeIncidents) -> None:
    (first,) = await notify(store, make_notice(make_alert("00000001"), group="a"), NOON)
    (other,) = await notify(store, make_notice(make_alert("00000002", application_id="app-2"), group="b"), NOON)
    assert first.id != other.id


async def test_where_not_all_alerts_were_sent_nobody_can_say_that_all_are_resolved(store: FakeIncidents) -> None:
    (incident,) = await notify(store, make_notice(make_alert(), truncated=True), NOON)
    (open_one,) = await notify(store, make_notice(ended(make_alert()), truncated=True), later(10))
    assert (open_one.state, open_one.alerts_unknown) == (State.FIRING, True)
    (over,) = await notify(store, make_notice(ended(make_alert())), later(20))
    assert (over.id, over.state) == (incident.id, State.RESOLVED)


async def test_only_so_many_alerts_of_an_incident_are_kept_and_that_is_said(store: FakeIncidents) -> None:
    for batch in range(MAX_KEPT // 1000 + 1):
        alerts = [make_alert(f"{batch * 1000 + number:08x}", application_id=None) for number in range(1000)]
        (incident,) = await notify(store, make_notice(*alerts), later(batch))
    assert (incident.alerts_total, incident.alerts_unknown) == (MAX_KEPT, True)


async def test_a_blocked_target_opens_one_escalated_incident_however_often_it_is_looked_at(
    store: FakeIncidents,
) -> None:
    report = make_report(key="blocked:ws-123/app-1", failed_at=NOON, escalated="3 operations failed")
    first = await tell(store, report, NOON)
    assert first is not None
    assert first.state is State.ESCALATED
    assert [event.type.value for event in store.events] == ["internal.incident.opened", "internal.incident.escalated"]
    for seconds in range(30):
        assert await tell(store, report, later(seconds)) is None
    await store.change(first.id, lambda held: resolve(held, "sa-1", later(40), "cured"), BY)
    assert await tell(store, report, later(50)) is None
    failed_again = msgspec.structs.replace(report, failed_at=later(60))
    again = await tell(store, failed_again, later(60))
    assert again is not None
    assert (again.id, again.state) == (first.id, State.ESCALATED)


FINGERPRINTS = ("00000001", "00000002", "00000003")
NOTIFICATIONS = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.dictionaries(st.sampled_from(FINGERPRINTS), st.sampled_from(AlertStatus), min_size=1),
        st.sampled_from((None, "app-1", "app-2")),
        st.integers(0, 900),
        st.booleans(),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(NOTIFICATIONS)
def test_no_alert_is_ever_in_two_open_incidents_and_counts_are_what_is_kept(
    notifications: list[tuple[str, dict[str, AlertStatus], str | None, int, bool]],
) -> None:
    async def play() -> None:
        store, now = FakeIncidents(SetClock()), NOON
        for group, given_alerts, application, seconds, twice in notifications:
            now += timedelta(seconds=seconds)
            alerts = [
                make_alert(fingerprint, status, application_id=application)
                for fingerprint, status in given_alerts.items()
            ]
            notice = make_notice(*alerts, group=group)
            told = await notify(store, notice, now)
            if twice:
                repeated = await notify(store, notice, now)
                assert {one.id: one.entries for one in repeated} == {
                    one.id: one.entries for one in told if one.id in {each.id for each in repeated}
                }
            for incident in store.held.values():
                kept = store.kept_alerts[incident.id].values()
                firing = sum(one.status is AlertStatus.FIRING for one in kept)
                assert (incident.alerts_firing, incident.alerts_total) == (firing, len(kept))
                assert incident.state.open or not firing
                assert incident.entries == len(store.kept_entries[incident.id])
            open_ones = [one for one in store.held.values() if one.state.open]
            for fingerprint in FINGERPRINTS:
                assert (
                    sum(
                        store.kept_alerts[one.id].get(fingerprint, ended(make_alert())).status is AlertStatus.FIRING
                        for one in open_ones
                    )
                    <= 1
                )
            found = await store.find(IncidentFilter(workspaces=None))
            assert [one.rank for one in found] == sorted(one.rank for one in found)

    asyncio.run(play())
