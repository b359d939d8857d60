"""Audit entries: what a request, a refused one and the system leave behind."""

from datetime import UTC, datetime

import pytest

from opsapi.audit.model import AuditEntry, Outcome, entry_from, request_entry, system_entry
from opsapi.kit.caller import AuditTrail, System
from support.acting import make_call, make_caller

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "succeeded"), (202, "succeeded"), (304, "succeeded"), (401, "refused"), (499, "refused"), (503, "failed")],
)
def test_the_outcome_follows_from_the_status(status: int, outcome: str) -> None:
    assert Outcome.of(status) == outcome


def test_a_call_leaves_who_for_whom_what_on_what_and_the_answer() -> None:
    call = make_call(make_caller("workspace:write@ws-1", run="run-7"))
    call.audit.workspace_id = "ws-1"
    call.audit.resource = "deployment/web"
    call.audit.operation_id = "op-1"
    call.audit.reason = "traffic"
    entry = entry_from(call, 202, now=call.started + 0.0123456)
    assert (entry.account_id, entry.account_kind, entry.token_id) == ("sa-agent", "agent", "tok-1")
    assert (entry.agent_run, entry.address, entry.endpoint, entry.method) == ("run-7", "127.0.0.1", "scale", "POST")
    assert (entry.workspace_id, entry.resource, entry.operation_id, entry.reason) == (
        "ws-1",
        "deployment/web",
        "op-1",
        "traffic",
    )
    assert (entry.status, entry.outcome, entry.duration_ms) == (202, Outcome.SUCCEEDED, 12.346)
    assert (entry.at, entry.request_id) == (call.received_at, call.request_id)


def test_a_request_without_valid_credentials_leaves_only_what_it_claimed() -> None:
    entry = request_entry(
        at=NOON,
        method="GET",
        path="/internal/v1/health",
        request_id="req-1",
        status=401,
        claimed_account_id="sa-root",
        address="192.0.2.7",
        error_code="INVALID_SERVICE_ACCOUNT",
    )
    assert (entry.account_id, entry.account_kind, entry.token_id) == (None, None, None)
    assert (entry.claimed_account_id, entry.address, entry.error_code) == (
        "sa-root",
        "192.0.2.7",
        "INVALID_SERVICE_ACCOUNT",
    )


def test_a_known_caller_leaves_no_claim() -> None:
    entry = request_entry(
        at=NOON, method="GET", path="/", request_id="r", status=200, caller=make_caller(), claimed_account_id="sa-agent"
    )
    assert entry.claimed_account_id is None


def test_what_the_system_does_is_told_from_what_accounts_do() -> None:
    entry = system_entry(
        System("cli", "workspaces add", "ann"), 201, at=NOON, trail=AuditTrail(workspace_id="ws-9", resource="x")
    )
    assert (entry.account_id, entry.account_kind, entry.on_behalf_of) == ("system:cli", "system", "ann")
    assert (entry.method, entry.path, entry.workspace_id, entry.resource) == ("CLI", "workspaces add", "ws-9", "x")


def test_no_field_is_made_for_tokens_bodies_or_answers() -> None:
    names = set(AuditEntry.__struct_fields__)
    assert names.isdisjoint({"token", "secret", "body", "request", "response", "headers", "query"})
