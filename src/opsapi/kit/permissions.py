"""Permissions as types: `<resource>:<verb>`, optionally bound to a workspace (`workspace:admin@ws-123`)."""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property


class Permission(StrEnum):
    """Every permission an endpoint can ask for."""

    SYSTEM_READ = "system:read"
    WORKSPACE_READ = "workspace:read"
    WORKSPACE_WRITE = "workspace:write"
    WORKSPACE_ADMIN = "workspace:admin"
    WORKSPACES_ADMIN = "workspaces:admin"
    APPLICATION_READ = "application:read"
    APPLICATION_WRITE = "application:write"
    INCIDENT_READ = "incident:read"
    INCIDENT_WRITE = "incident:write"
    LOGS_READ = "logs:read"
    LOGS_WRITE = "logs:write"
    AUDIT_READ = "audit:read"
    ACCOUNTS_ADMIN = "accounts:admin"
    WEBHOOKS_ADMIN = "webhooks:admin"
    APPROVALS_WRITE = "approvals:write"

    @cached_property
    def implied(self) -> frozenset["Permission"]:
        """Itself and what it includes: admin implies write implies read of the same resource."""
        resource, verb = self.value.split(":")
        weaker = {"read": ("read",), "write": ("write", "read"), "admin": ("admin", "write", "read")}[verb]
        return frozenset(p for p in Permission if p.value in {f"{resource}:{v}" for v in weaker})


UNBOUND_ONLY = frozenset(
    {Permission.SYSTEM_READ, Permission.WORKSPACES_ADMIN, Permission.ACCOUNTS_ADMIN, Permission.WEBHOOKS_ADMIN}
)
"""What concerns the whole installation and so cannot be bound to one workspace."""

_WORKSPACE_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """One permission, everywhere (`workspace=""`) or in one workspace."""

    permission: Permission
    workspace: str = ""

    @classmethod
    def parse(cls, text: str) -> "Grant":
        """`"workspace:admin@ws-123"`. Raises ValueError with what is allowed."""
        name, at, workspace = text.partition("@")
        try:
            permission = Permission(name)
        except ValueError:
            raise ValueError(f"{name!r} is no permission; known: {', '.join(Permission)}") from None
        if at and not _WORKSPACE_ID.fullmatch(workspace):
            raise ValueError(f"{workspace!r} is no workspace id")
        if at and permission in UNBOUND_ONLY:
            raise ValueError(f"{name} concerns the whole installation and cannot be bound to a workspace")
        return cls(permission, workspace)

    def __str__(self) -> str:
        return f"{self.permission}@{self.workspace}" if self.workspace else str(self.permission)


class Grants:
    """What an account may do, with constant-time look-ups."""

    __slots__ = ("_effective", "_workspaces", "granted", "sees_every_workspace")

    def __init__(self, granted: frozenset[Grant]) -> None:
        self.granted = granted
        self._effective = frozenset((weaker, g.workspace) for g in granted for weaker in g.permission.implied)
        workspace_kinds = frozenset(Permission) - UNBOUND_ONLY - {Permission.APPROVALS_WRITE}
        self.sees_every_workspace = any(
            g.workspace == "" and (g.permission in workspace_kinds or g.permission is Permission.WORKSPACES_ADMIN)
            for g in granted
        )
        self._workspaces = frozenset(g.workspace for g in granted if g.workspace)

    def allows(self, permission: Permission, workspace: str = "") -> bool:
        """Whether `permission` holds in `workspace` ("" asks for the unbound permission)."""
        return (permission, "") in self._effective or (bool(workspace) and (permission, workspace) in self._effective)

    def allows_somewhere(self, permission: Permission) -> bool:
        return any(effective is permission for effective, _ in self._effective)

    def sees(self, workspace: str) -> bool:
        """Whether anything at all is granted there; what is not seen is answered like what does not exist."""
        return self.sees_every_workspace or workspace in self._workspaces

    def workspaces(self, permission: Permission) -> frozenset[str] | None:
        """The workspaces where `permission` holds; None means all."""
        if (permission, "") in self._effective:
            return None
        return frozenset(workspace for effective, workspace in self._effective if effective is permission)

    def covers(self, other: frozenset[Grant]) -> frozenset[Grant]:
        """The grants of `other` that these do not include: nobody grants what they lack."""
        return frozenset(g for g in other if not all(self.allows(weaker, g.workspace) for weaker in (g.permission,)))

    def names(self) -> list[str]:
        return sorted(str(g) for g in self.granted)
