"""The state machine of incidents, by every sequence of what may happen to one."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.incidents.model import Announced, Change, EntryKind, Incident, Severity, State
from opsapi.incidents.transitions import acknowledge, check_seen, escalate, merge, moved, noted, raised, reopen, resolve
from opsapi.kit.errors import InvalidState, StateDetails
from opsapi.webhooks.model import EventType
from support.acting import NOON
from support.incidents import make_incident


def _reopened(incident: Incident) -> Change:
    after, entry = reopen(incident, "system:incidents", NOON, "it fires again")
    return Change(before=incident, after=after, entries=(entry,))


ACTIONS: dict[str, tuple[Callable[[Incident], Change], State]] = {
    "acknowledge": (lambda one: acknowledge(one, "sa-1", NOON), State.ACKNOWLEDGED),
    "escalate": (lambda one: escalate(one, "sa-1", NOON, channels=(), why="too long"), State.ESCALATED),
    "resolve": (lambda one: resolve(one, "sa-1", NOON, "done"), State.RESOLVED),
    "merge": (lambda one: merge(one, make_incident(id="inc-2"), "sa-1", NOON)[0], State.MERGED),
    "reopen": (_reopened, State.FIRING),
}
ALLOWED = {
    "acknowledge": {State.FIRING, State.ESCALATED},
    "escalate": {State.FIRING, State.ACKNOWLEDGED},
    "resolve": {State.FIRING, State.ACKNOWLEDGED, State.ESCALATED},
    "merge": {State.FIRING, State.ACKNOWLEDGED, State.ESCALATED},
    "reopen": {State.RESOLVED},
}
IN_STATE = {
    State.FIRING: make_incident(),
    State.ACKNOWLEDGED: make_incident(state=State.ACKNOWLEDGED, acknowledged_at=NOON, acknowledged_by="sa-1"),
    State.ESCALATED: make_incident(state=State.ESCALATED, escalated_at=NOON),
    State.RESOLVED: make_incident(state=State.RESOLVED, resolved_at=NOON, resolved_by="sa-1"),
    State.MERGED: make_incident(state=State.MERGED, merged_into="inc-9"),
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_leads_where_it_should_or_says_from_where_it_is_allowed(action: str, state: State) -> None:
    act, leads_to = ACTIONS[action]
    if state in ALLOWED[action]:
        change = act(IN_STATE[state])
        assert change.after.state is leads_to
        assert change.after.revision == 2
        assert len(change.entries) == 1
        return
    with pytest.raises(InvalidState) as refused:
        act(IN_STATE[state])
    details = refused.value.details
    assert isinstance(details, StateDetails)
    assert (details.resource_id, details.state) == ("inc-1", state.value)
    assert set(details.allowed_from or ()) == {one.value for one in ALLOWED[action]}


def _sound(incident: Incident) -> None:
    """What the database insists on too."""
    assert (incident.state is State.RESOLVED) == (incident.resolved_at is not None)
    assert (incident.state is State.MERGED) == (incident.merged_into is not None)
    assert incident.state is not State.ACKNOWLEDGED or incident.acknowledged_at is not None
    assert incident.state is not State.ESCALATED or incident.escalated_at is not None
    assert incident.state.open or incident.alerts_firing == 0


@given(st.lists(st.sampled_from(sorted(ACTIONS)), max_size=30), st.integers(0, 3))
def test_whatever_happens_each_transition_is_one_revision_and_one_entry(actions: list[str], firing: int) -> None:
    incident = make_incident(alerts_firing=firing, alerts_total=firing)
    transitions = 0
    for action in actions:
        act, leads_to = ACTIONS[action]
        try:
            change = act(incident)
        except InvalidState:
            allowed = incident.state in ALLOWED[action]
            assert not allowed or (action == "resolve" and incident.alerts_firing)
            continue
        assert change.before == incident
        assert len(change.entries) == 1
        incident = change.after
        transitions += 1
        assert incident.state is leads_to
        _sound(incident)
    assert incident.revision == 1 + transitions


def test_what_is_acknowledged_says_by_whom_and_since_when() -> None:
    change = acknowledge(IN_STATE[State.ESCALATED], "sa-7", NOON + timedelta(minutes=1), "looking at it")
    assert (change.after.acknowledged_by, change.after.acknowledged_at) == ("sa-7", NOON + timedelta(minutes=1))
    assert change.after.escalated_at == NOON
    assert change.entries[0].details == {"note": "looking at it"}


@pytest.mark.parametrize(("firing", "told"), [(1, "1 alert of it fires"), (3, "3 alerts of it fire")])
def test_nothing_is_resolved_while_its_alert_fires(firing: int, told: str) -> None:
    with pytest.raises(InvalidState, match=told):
        resolve(make_incident(alerts_firing=firing, alerts_total=3), "sa-1", NOON, "done")


def test_an_escalation_is_announced_to_the_channels() -> None:
    change = escalate(make_incident(), "sa-1", NOON, channels=("slack:#ops",), why="by hand")
    assert change.announced == (Announced(EventType.INCIDENT_ESCALATED, ("slack:#ops",), "escalate"),)
    assert change.entries[0].details == {"channels": ["slack:#ops"]}


def test_what_fires_again_begins_anew() -> None:
    held = make_incident(
        state=State.RESOLVED, resolved_at=NOON, resolved_by="sa-1", acknowledged_at=NOON, acknowledged_by="sa-1",
        escalated_at=NOON,
    )  # fmt: skip
    after, _ = reopen(held, "system:incidents", NOON + timedelta(minutes=5), "again")
    assert (after.fired_at, after.opened_at) == (NOON + timedelta(minutes=5), NOON)
    assert (after.acknowledged_at, after.acknowledged_by, after.escalated_at, after.resolved_by) == (None,) * 4


def test_a_merge_closes_the_source_and_the_target_carries_on_with_what_it_had() -> None:
    source = make_incident(
        severity=Severity.CRITICAL, affected_applications=("app-1", "app-2"), alerts_firing=2, alerts_total=3
    )
    target = make_incident(id="inc-2", affected_applications=("app-2", "app-3"), alerts_firing=1, alerts_total=1)
    closed, grown = merge(source, target, "sa-1", NOON)
    assert (closed.after.state, closed.after.merged_into, closed.after.alerts_firing) == (State.MERGED, "inc-2", 0)
    assert grown.takes_over == "inc-1"
    assert grown.after.state is State.FIRING
    assert grown.after.severity is Severity.CRITICAL
    assert grown.after.affected_applications == ("app-2", "app-3", "app-1")
    assert (grown.after.alerts_firing, grown.after.alerts_total) == (3, 4)
    assert [entry.kind for entry in grown.entries] == [EntryKind.ABSORBED, EntryKind.SEVERITY_RAISED]


@pytest.mark.parametrize("state", [State.RESOLVED, State.MERGED])
def test_nothing_is_merged_into_what_is_closed(state: State) -> None:
    with pytest.raises(InvalidState):
        merge(make_incident(id="inc-7"), IN_STATE[state], "sa-1", NOON)


def test_nothing_is_merged_into_itself() -> None:
    with pytest.raises(InvalidState):
        merge(make_incident(), make_incident(), "sa-1", NOON)


def test_who_saw_an_older_revision_is_told_what_it_has_become() -> None:
    held = moved(make_incident(), State.ACKNOWLEDGED, acknowledged_at=NOON)
    check_seen(held, 2)
    check_seen(held, None)
    with pytest.raises(InvalidState, match="become acknowledged meanwhile"):
        check_seen(held, 1)


def test_a_note_changes_nothing_but_the_timeline() -> None:
    change = noted(make_incident(), "sa-1", NOON, "it began with the release")
    assert change.after == change.before
    assert change.entries[0].details == {"note": "it began with the release"}


@given(st.sampled_from(Severity), st.sampled_from(Severity))
def test_severity_is_only_ever_told_of_when_it_grows(before: Severity, after: Severity) -> None:
    assert bool(raised(before, after, "sa-1", NOON)) == (after.rank < before.rank)


def test_open_incidents_come_before_closed_ones_and_the_worst_first() -> None:
    ordered = [
        make_incident(severity=severity, **changes)
        for changes in ({}, {"state": State.RESOLVED, "resolved_at": NOON})
        for severity in (Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM, Severity.LOW)
    ]
    assert [one.rank for one in ordered] == list(range(8))
