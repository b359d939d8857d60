"""The audit in memory, and entries to put there."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import msgspec

from opsapi.audit.chain import ChainedEntry, ChainHead, Checkpoint, Link
from opsapi.audit.model import AuditEntry, Outcome
from opsapi.audit.ports import AuditFilter, AuditPosition, Lease, LeaseLost
from opsapi.kit.ids import new_id
from support.acting import SetClock

KEY = b"a key of thirty-two bytes or more"


def make_entry(at: datetime, **fields: object) -> AuditEntry:
    entry = AuditEntry(
        id=new_id("aud"),
        at=at,
        account_id="sa-1",
        account_kind="agent",
        token_id="tok-1",
        address="192.0.2.7",
        endpoint="scale",
        method="POST",
        path="/internal/v1/workspaces/ws-1/deployments/web/scale",
        workspace_id="ws-1",
        status=202,
        outcome=Outcome.SUCCEEDED,
        duration_ms=1.5,
        request_id=new_id("req"),
    )
    return msgspec.structs.replace(entry, **fields)


def make_entries(clock: SetClock, count: int) -> list[AuditEntry]:
    """One a second, starting now."""
    return [make_entry(clock.now() + timedelta(seconds=n), path=f"/{n}") for n in range(count)]


class FakeAuditStore:
    """Implements AuditStore and ChainStore. `failures` are raised first, one an insert."""

    def __init__(self, clock: SetClock) -> None:
        self.clock = clock
        self.entries: dict[str, AuditEntry] = {}
        self.links: dict[str, Link] = {}
        self.leases: dict[str, Lease] = {}
        self.marks: list[Checkpoint] = []
        self.failures: list[Exception] = []
        self.batches: list[int] = []
        self._head = ChainHead()

    async def insert(self, entries: Sequence[AuditEntry]) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append(len(entries))
        for entry in entries:
            self.entries.setdefault(entry.id, entry)

    async def page(self, wanted: AuditFilter, after: AuditPosition | None, limit: int) -> list[AuditEntry]:
        def fits(entry: AuditEntry) -> bool:
            names = ("account_id", "workspace_id", "endpoint", "operation_id", "request_id", "status", "outcome")
            return (
                (wanted.workspaces is None or entry.workspace_id in wanted.workspaces)
                and all(getattr(wanted, name) in (None, getattr(entry, name)) for name in names)
                and (wanted.since is None or entry.at >= wanted.since)
                and (wanted.until is None or entry.at < wanted.until)
                and (after is None or (entry.at, entry.id) < (after.at, after.id))
            )

        found = sorted(filter(fits, self.entries.values()), key=lambda one: (one.at, one.id), reverse=True)
        return found[:limit]

    async def acquire(self, name: str, holder: str, ttl: timedelta) -> Lease | None:
        held, now = self.leases.get(name), self.clock.now()
        alive = held is not None and held.expires_at > now
        if held is not None and alive and held.holder != holder:
            return None
        token = 1 if held is None else held.token + (not alive)
        self.leases[name] = Lease(name=name, holder=holder, token=token, expires_at=now + ttl)
        return self.leases[name]

    async def release(self, lease: Lease) -> None:
        if self.leases.get(lease.name, lease).token == lease.token:
            self.leases[lease.name] = msgspec.structs.replace(lease, expires_at=self.clock.now())

    async def append(
        self, lease: Lease, link: Callable[[ChainHead, Sequence[AuditEntry]], list[Link]], limit: int
    ) -> tuple[ChainHead, int]:
        waiting = [entry for entry in self.entries.values() if entry.id not in self.links]
        waiting = sorted(waiting, key=lambda one: (one.at, one.id))[:limit]
        if not waiting:
            return self._head, 0
        held = self.leases[lease.name]
        if (held.holder, held.token) != (lease.holder, lease.token):
            raise LeaseLost(lease.name)
        links = link(self._head, waiting)
        self.links |= {one.entry_id: one for one in links}
        self._head = ChainHead(links[-1].seq, links[-1].mac)
        return self._head, len(links)

    async def head(self) -> ChainHead:
        return self._head

    async def chained(self, after: int, limit: int) -> list[ChainedEntry]:
        found = [
            ChainedEntry(entry=self.entries[one.entry_id], seq=one.seq, mac=one.mac, key_id=one.key_id)
            for one in sorted(self.links.values(), key=lambda one: one.seq)
            if one.seq > after
        ]
        return found[:limit]

    async def unchained(self, before: datetime) -> int:
        return sum(entry.id not in self.links and entry.at < before for entry in self.entries.values())

    async def add_checkpoint(self, mark: Checkpoint) -> None:
        if all(one.seq != mark.seq for one in self.marks):
            self.marks.append(mark)

    async def checkpoints(self) -> list[Checkpoint]:
        return sorted(self.marks, key=lambda mark: mark.seq, reverse=True)

    async def last_checkpoint(self) -> Checkpoint | None:
        return next(iter(await self.checkpoints()), None)


class FakeSink:
    """Keeps what it is given; `failure` is raised instead while it is set."""

    def __init__(self) -> None:
        self.marks: list[Checkpoint] = []
        self.failure: OSError | None = None

    async def export(self, mark: Checkpoint) -> None:
        if self.failure is not None:
            raise self.failure
        self.marks.append(mark)
