"""Calls as the guard hands them to handlers."""

from datetime import UTC, datetime

from opsapi.kit.caller import AccountKind, Call, Caller
from opsapi.kit.permissions import Grant, Grants


def grants_of(*names: str) -> Grants:
    return Grants(frozenset(Grant.parse(name) for name in names))


def call_of(*grants: str) -> Call:
    """A call by an account with these permissions (`workspace:read@ws-123`)."""
    caller = Caller("sa-test", AccountKind.AGENT, grants_of(*grants), "tok-1", "127.0.0.1")
    return Call(caller, "req-1", "test", "GET", "/internal/v1", datetime(2024, 1, 20, 15, 30, tzinfo=UTC), 0.0)
