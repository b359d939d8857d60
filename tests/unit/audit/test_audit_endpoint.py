"""`GET /internal/v1/audit`."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from opsapi.audit.endpoints import AuditEndpoints, AuditParams
from opsapi.audit.ports import AuditPosition
from opsapi.kit.cursor import encode_cursor
from opsapi.kit.endpoint import NoBody, declarations
from opsapi.kit.errors import ValidationFailed
from opsapi.kit.permissions import Permission
from support.acting import SetClock, make_call, make_caller
from support.audit import FakeAuditStore, make_entry

CLOCK = SetClock()
EVERYWHERE = make_call(make_caller("audit:read"))
BOUND = make_call(make_caller("audit:read@ws-1", "workspace:admin"))


@pytest.fixture
async def endpoints() -> AuditEndpoints:
    store = FakeAuditStore(CLOCK)
    workspaces = ["ws-1", "ws-2", None, "ws-1", "ws-1"]
    await store.insert(
        [
            make_entry(CLOCK.now() + timedelta(minutes=n), id=f"aud-{n}", workspace_id=workspace, status=200 + n)
            for n, workspace in enumerate(workspaces)
        ]
    )
    return AuditEndpoints(store)


def test_the_audit_is_read_with_its_own_permission() -> None:
    [declared] = declarations(AuditEndpoints)
    assert (declared.path, declared.permission) == ("/internal/v1/audit", Permission.AUDIT_READ)


async def _ids(endpoints: AuditEndpoints, params: AuditParams) -> list[str]:
    reply = await endpoints.list_audit_entries(EVERYWHERE, params, NoBody())
    return [entry.id for entry in reply.data.entries]


async def test_entries_come_newest_first(endpoints: AuditEndpoints) -> None:
    assert await _ids(endpoints, AuditParams()) == ["aud-4", "aud-3", "aud-2", "aud-1", "aud-0"]


async def test_a_bound_auditor_sees_their_workspaces_only_whatever_they_ask_for(endpoints: AuditEndpoints) -> None:
    for params, expected in (
        (AuditParams(), ["aud-4", "aud-3", "aud-0"]),
        (AuditParams(workspace="ws-2"), []),
        (AuditParams(status=202), []),
        (AuditParams(cursor=encode_cursor("audit", AuditPosition(CLOCK.now() + timedelta(days=9), "x"))), None),
    ):
        reply = await endpoints.list_audit_entries(BOUND, params, NoBody())
        ids = [entry.id for entry in reply.data.entries]
        assert ids == (["aud-4", "aud-3", "aud-0"] if expected is None else expected)


async def test_times_bound_the_list_from_inclusive_to_exclusive(endpoints: AuditEndpoints) -> None:
    raw = {"from": "2024-01-20T12:01:00Z", "to": "2024-01-20T14:03:00+02:00"}
    assert await _ids(endpoints, msgspec.convert(raw, AuditParams)) == ["aud-2", "aud-1"]


async def test_pages_follow_by_cursor(endpoints: AuditEndpoints) -> None:
    first = await endpoints.list_audit_entries(EVERYWHERE, AuditParams(limit=3), NoBody())
    assert first.truncated
    second = await endpoints.list_audit_entries(EVERYWHERE, AuditParams(limit=3, cursor=first.next_cursor), NoBody())
    assert not second.truncated
    assert second.next_cursor is None
    entries = first.data.entries + second.data.entries
    assert [entry.id for entry in entries] == ["aud-4", "aud-3", "aud-2", "aud-1", "aud-0"]


async def test_what_callers_wrote_is_marked_untrusted(endpoints: AuditEndpoints) -> None:
    reply = await endpoints.list_audit_entries(EVERYWHERE, AuditParams(limit=1), NoBody())
    assert reply.untrusted == ["/entries/0/path"]


@pytest.mark.parametrize(
    "raw",
    [
        {"from": "yesterday"},
        {"from": "2024-01-20T12:01:00"},
        {"status": 99},
        {"limit": 0},
        {"limit": 501},
        {"outcome": "fine"},
        {"password": "x"},
    ],
)
def test_parameters_out_of_range_are_refused(raw: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(raw, AuditParams)


async def test_moments_at_the_edge_of_the_calendar_are_refused_not_fatal(endpoints: AuditEndpoints) -> None:
    edge = msgspec.convert({"from": "0001-01-01T00:00:00+10:00"}, AuditParams)
    with pytest.raises(ValidationFailed):
        await _ids(endpoints, edge)
    position = AuditPosition(msgspec.convert("9999-12-31T23:59:59-10:00", datetime), "x")
    assert position.at.tzinfo is not UTC
    with pytest.raises(ValidationFailed):
        await _ids(endpoints, AuditParams(cursor=encode_cursor("audit", position)))
