"""Who calls: what the guard hands to every handler."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import msgspec

from opsapi.kit.permissions import Grants


class AccountKind(StrEnum):
    AGENT = "agent"
    SERVICE = "service"
    PERSON = "person"


class Caller(msgspec.Struct, frozen=True):
    """An authenticated account, as it stands while its request runs. Holds no token, only the token's id.

    A Struct as `Call` is, since each request makes one: a frozen dataclass takes ten times as long.
    """

    account_id: str
    kind: AccountKind
    grants: Grants
    token_id: str
    address: str
    on_behalf_of: str | None = None
    agent_run: str | None = None


class AuditTrail(msgspec.Struct):
    """What a handler adds to its request's audit entry.

    A mutation passes the call to its store, which writes the entry in the mutation's own transaction and sets
    `committed`, so that the guard does not write it again.
    """

    workspace_id: str | None = None
    resource: str | None = None
    operation_id: str | None = None
    reason: str | None = None
    committed: bool = False


class Call(msgspec.Struct, frozen=True):
    """One request past the guard; `endpoint`, `method`, `path` are for the audit, `started` is monotonic seconds."""

    caller: Caller
    request_id: str
    endpoint: str
    method: str
    path: str
    received_at: datetime
    started: float
    idempotency_key: str | None = None
    audit: AuditTrail = msgspec.field(default_factory=AuditTrail)


@dataclass(frozen=True, slots=True)
class System:
    """Who acts where no account does: an operator at the CLI on the machine, or the service itself.

    `origin` is `cli` or the part of the service, `action` what it does (`accounts create`), `user` the login name.
    """

    origin: str
    action: str
    user: str | None = None

    @property
    def account_id(self) -> str:
        return f"system:{self.origin}"
