"""Accounts in memory, and callers made of them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import msgspec

from opsapi.accounts.model import Account, Credential, Token, TokenUse
from opsapi.accounts.ports import AccountChange
from opsapi.accounts.tokens import new_secret, sha256
from opsapi.kit.caller import AccountKind, Call, Caller, System
from opsapi.kit.ids import new_id
from support.acting import SetClock

LONG_AGO = datetime(2023, 6, 1, tzinfo=UTC)
OPERATOR = System("cli", "accounts create", "root")


class FakeAccountStore:
    """Implements accounts' AccountStore; `audited` holds (who, status, resource) of what was committed."""

    def __init__(self) -> None:
        self.by_id: dict[str, Account] = {}
        self.tokens_by_id: dict[str, Token] = {}
        self.hashes: dict[bytes, str] = {}
        self.audited: list[tuple[str, int, str]] = []
        self.lookups = 0
        self.gate: asyncio.Event | None = None
        self.away: Exception | None = None
        self._lock = asyncio.Lock()

    async def credential(self, sha256: bytes) -> Credential | None:
        self.lookups += 1
        if self.away is not None:
            raise self.away
        token = self.tokens_by_id.get(self.hashes.get(sha256, ""))
        found = None
        if token is not None:
            found = Credential(account=self.by_id[token.account_id], token=token, sha256=sha256)
        if self.gate is not None:
            await self.gate.wait()
        return found

    async def account(self, account_id: str) -> Account | None:
        return self.by_id.get(account_id)

    async def token(self, token_id: str) -> Token | None:
        return self.tokens_by_id.get(token_id)

    async def accounts(self, *, after: str, limit: int, kind: AccountKind | None) -> list[Account]:
        found = [a for key, a in sorted(self.by_id.items()) if key > after and kind in (None, a.kind)]
        return found[:limit]

    async def tokens(self, account_id: str) -> list[Token]:
        found = [token for token in self.tokens_by_id.values() if token.account_id == account_id]
        return sorted(found, key=lambda token: (token.created_at, token.id), reverse=True)

    async def record_uses(self, uses: Sequence[TokenUse]) -> None:
        if self.away is not None:
            raise self.away
        for use in uses:
            token = self.tokens_by_id.get(use.token_id)
            if token is not None and (token.last_used_at is None or token.last_used_at < use.at):
                self.tokens_by_id[use.token_id] = msgspec.structs.replace(
                    token, last_used_at=use.at, last_used_address=use.address
                )

    @asynccontextmanager
    async def change(self) -> AsyncIterator[AccountChange]:
        async with self._lock:
            change = _FakeChange(self)
            yield change
            self.by_id.update(change.accounts)
            self.tokens_by_id.update(change.changed_tokens)
            self.hashes.update(change.hashes)
            self.audited += change.audited
            for call in change.calls:
                call.audit.committed = True


class _FakeChange:
    def __init__(self, store: FakeAccountStore) -> None:
        self._store = store
        self.accounts: dict[str, Account] = {}
        self.changed_tokens: dict[str, Token] = {}
        self.hashes: dict[bytes, str] = {}
        self.audited: list[tuple[str, int, str]] = []
        self.calls: list[Call] = []

    async def lock(self, *account_ids: str) -> dict[str, Account]:
        return {one: self._store.by_id[one] for one in account_ids if one in self._store.by_id}

    async def tokens(self, account_id: str) -> list[Token]:
        every = {token.id: token for token in await self._store.tokens(account_id)}
        every |= {key: token for key, token in self.changed_tokens.items() if token.account_id == account_id}
        return sorted(every.values(), key=lambda token: (token.created_at, token.id), reverse=True)

    async def insert_account(self, account: Account) -> None:
        self.accounts[account.id] = account

    async def update_account(self, account: Account) -> None:
        self.accounts[account.id] = account

    async def insert_token(self, token: Token, sha256: bytes) -> None:
        self.changed_tokens[token.id] = token
        self.hashes[sha256] = token.id

    async def update_token(self, token: Token) -> None:
        self.changed_tokens[token.id] = token

    async def audit(self, by: Call | System, status: int, resource: str, *, at: datetime, reason: str) -> None:
        who = by.caller.account_id if isinstance(by, Call) else by.account_id
        self.audited.append((who, status, resource))
        if isinstance(by, Call):
            by.audit.resource = resource
            by.audit.reason = reason
            self.calls.append(by)


def make_account(*permissions: str, kind: AccountKind = AccountKind.SERVICE, **changes: object) -> Account:
    account = Account(
        id=new_id("sa"),
        name="test",
        kind=kind,
        description="",
        permissions=sorted(permissions),
        allowed_addresses=[],
        may_act_for=[],
        created_at=LONG_AGO,
        created_by="system:cli",
        updated_at=LONG_AGO,
    )
    return msgspec.structs.replace(account, **changes)


def make_token(account: Account, clock: SetClock, *, days: float = 30) -> Token:
    return Token(
        id=new_id("tok"),
        account_id=account.id,
        description="",
        created_at=clock.now(),
        created_by="system:cli",
        expires_at=clock.now() + timedelta(days=days),
    )


def add_account(store: FakeAccountStore, account: Account) -> Account:
    store.by_id[account.id] = account
    return account


def add_token(store: FakeAccountStore, account: Account, clock: SetClock, *, days: float = 30) -> tuple[Token, str]:
    token, secret = make_token(account, clock, days=days), new_secret()
    store.tokens_by_id[token.id] = token
    store.hashes[sha256(secret)] = token.id
    return token, secret


def call_of(account: Account, token: Token, endpoint: str = "create_service_account") -> Call:
    caller = Caller(account.id, account.kind, account.grants(), token.id, "192.0.2.7")
    return Call(
        caller=caller,
        request_id=new_id("req"),
        endpoint=endpoint,
        method="POST",
        path="/internal/v1/service-accounts",
        received_at=LONG_AGO,
        started=0.0,
    )
