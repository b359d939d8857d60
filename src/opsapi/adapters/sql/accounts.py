"""Accounts' and tokens' rows. A token's text is never here, only its SHA-256, which leaves by `credential` alone."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from opsapi.accounts.model import Account, Credential, Token, TokenUse
from opsapi.accounts.ports import AccountChange
from opsapi.adapters.sql.audit import insert_call
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.tables import account_tokens, accounts
from opsapi.kit.caller import AccountKind, Call, System
from opsapi.kit.clock import Clock

_ACCOUNT_FIELDS = {
    field.name: "grants" if field.name == "permissions" else field.name for field in msgspec.structs.fields(Account)
}
_ACCOUNT_COLUMNS = [accounts.c[column] for column in _ACCOUNT_FIELDS.values()]
_TOKEN_COLUMNS = [account_tokens.c[field.name] for field in msgspec.structs.fields(Token)]


def _account(row: Any, prefix: str = "") -> Account:
    values = {field: getattr(row, prefix + column) for field, column in _ACCOUNT_FIELDS.items()}
    values["kind"] = AccountKind(values["kind"])
    return Account(**values)


def _account_row(account: Account) -> dict[str, Any]:
    return {column: getattr(account, field) for field, column in _ACCOUNT_FIELDS.items()}


def _token(row: Any, prefix: str = "") -> Token:
    return Token(**{column.name: getattr(row, prefix + column.name) for column in _TOKEN_COLUMNS})


class SqlAccountStore:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def credential(self, sha256: bytes) -> Credential | None:
        query = (
            sa.select(
                account_tokens.c.sha256,
                *(column.label("token_" + column.name) for column in _TOKEN_COLUMNS),
                *(column.label("account_" + column.name) for column in _ACCOUNT_COLUMNS),
            )
            .join_from(account_tokens, accounts)
            .where(account_tokens.c.sha256 == sha256)
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        return Credential(account=_account(row, "account_"), token=_token(row, "token_"), sha256=bytes(row.sha256))

    async def account(self, account_id: str) -> Account | None:
        query = sa.select(*_ACCOUNT_COLUMNS).where(accounts.c.id == account_id)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else _account(row)

    async def token(self, token_id: str) -> Token | None:
        query = sa.select(*_TOKEN_COLUMNS).where(account_tokens.c.id == token_id)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else _token(row)

    async def accounts(self, *, after: str, limit: int, kind: AccountKind | None) -> list[Account]:
        query = sa.select(*_ACCOUNT_COLUMNS).where(accounts.c.id > after).order_by(accounts.c.id).limit(limit)
        if kind is not None:
            query = query.where(accounts.c.kind == kind)
        async with self._database.read() as connection:
            return [_account(row) for row in await connection.execute(query)]

    async def tokens(self, account_id: str) -> list[Token]:
        async with self._database.read() as connection:
            return await _tokens(connection, account_id)

    async def record_uses(self, uses: Sequence[TokenUse]) -> None:
        if not uses:
            return
        last = account_tokens.c.last_used_at
        statement = (
            sa.update(account_tokens)
            .where(account_tokens.c.id == sa.bindparam("token"))
            .where(sa.or_(last.is_(None), last < sa.bindparam("used_at", type_=last.type)))
            .values(last_used_at=sa.bindparam("used_at", type_=last.type), last_used_address=sa.bindparam("used_from"))
        )
        # By id, as every replica does, so that two of them cannot wait for each other.
        ordered = sorted(uses, key=lambda use: use.token_id)
        rows = [{"token": use.token_id, "used_at": use.at, "used_from": use.address[:64]} for use in ordered]
        async with self._database.write() as connection:
            await connection.execute(statement, rows)

    @asynccontextmanager
    async def change(self) -> AsyncIterator[AccountChange]:
        async with self._database.write() as connection:
            change = _SqlAccountChange(connection, self._clock)
            yield change
        if change.audited is not None:
            change.audited.audit.committed = True


class _SqlAccountChange:
    def __init__(self, connection: AsyncConnection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self.audited: Call | None = None

    async def lock(self, *account_ids: str) -> dict[str, Account]:
        query = (
            sa.select(*_ACCOUNT_COLUMNS).where(accounts.c.id.in_(account_ids)).order_by(accounts.c.id).with_for_update()
        )
        return {row.id: _account(row) for row in await self._connection.execute(query)}

    async def tokens(self, account_id: str) -> list[Token]:
        return await _tokens(self._connection, account_id)

    async def insert_account(self, account: Account) -> None:
        await self._connection.execute(sa.insert(accounts), _account_row(account))

    async def update_account(self, account: Account) -> None:
        row = _account_row(account)
        await self._connection.execute(sa.update(accounts).where(accounts.c.id == account.id).values(row))

    async def insert_token(self, token: Token, sha256: bytes) -> None:
        row = msgspec.structs.asdict(token) | {"sha256": sha256}
        await self._connection.execute(sa.insert(account_tokens), row)

    async def update_token(self, token: Token) -> None:
        changed = {"expires_at": token.expires_at, "revoked_at": token.revoked_at, "revoked_by": token.revoked_by}
        await self._connection.execute(sa.update(account_tokens).where(account_tokens.c.id == token.id).values(changed))

    async def audit(self, by: Call | System, status: int, resource: str, *, at: datetime, reason: str) -> None:
        await insert_call(
            self._connection, by, status, now=self._clock.monotonic(), at=at, resource=resource, reason=reason
        )
        self.audited = by if isinstance(by, Call) else None


async def _tokens(connection: AsyncConnection, account_id: str) -> list[Token]:
    query = (
        sa.select(*_TOKEN_COLUMNS)
        .where(account_tokens.c.account_id == account_id)
        .order_by(account_tokens.c.created_at.desc(), account_tokens.c.id.desc())
    )
    return [_token(row) for row in await connection.execute(query)]
