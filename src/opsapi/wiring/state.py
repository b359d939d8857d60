"""What needs the database alone: enough for the command line, and the ground of the running service."""

import base64
import binascii
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from opsapi.accounts.administration import Administration, NewAccount
from opsapi.accounts.authentication import Authenticator
from opsapi.accounts.issuing import TokenIssuer
from opsapi.adapters.sql.accounts import SqlAccountStore
from opsapi.adapters.sql.audit import SqlAuditStore
from opsapi.adapters.sql.chain import SqlChainStore
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.idempotency import SqlIdempotencyStore
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.audit.chain import ChainKeys
from opsapi.kit.caller import AccountKind, System
from opsapi.kit.clock import Clock, SystemClock
from opsapi.kit.secret import Secret
from opsapi.operations.signals import Signals
from opsapi.settings.model import Settings
from opsapi.settings.source import InvalidConfiguration

CLAIM_MARGIN = timedelta(seconds=30)
"""A key's claim outlives the longest request, so that only a dead owner's is taken over."""


@dataclass(frozen=True, slots=True)
class State:
    """An opened database with the stores on it."""

    settings: Settings
    clock: Clock
    database: Database
    accounts: SqlAccountStore
    authenticator: Authenticator
    administration: Administration
    issuer: TokenIssuer
    audit: SqlAuditStore
    chain: SqlChainStore
    chain_keys: ChainKeys
    idempotency: SqlIdempotencyStore
    signals: Signals
    ledger: SqlLedger

    async def create_account(
        self, *, name: str, kind: AccountKind, grants: Sequence[str], by: System
    ) -> tuple[str, str]:
        """An account with one token; returns its id and the token's text."""
        account = await self.administration.create(by, NewAccount(name=name, kind=kind, permissions=grants))
        issued = await self.issuer.issue(by, account.id)
        return account.id, issued.secret


@asynccontextmanager
async def opened_state(settings: Settings) -> AsyncIterator[State]:
    """Connects and migrates. Raises InvalidConfiguration, DependencyUnavailable, SchemaIsNewer."""
    keys = chain_keys(settings)
    clock = SystemClock()
    database = open_database(settings, clock)
    try:
        await database.migrate()
        accounts = SqlAccountStore(database, clock)
        authenticator = Authenticator(accounts, clock)
        changed: Callable[[str], None] = authenticator.forget
        signals = Signals()
        yield State(
            settings=settings,
            clock=clock,
            database=database,
            accounts=accounts,
            authenticator=authenticator,
            administration=Administration(accounts, clock, changed),
            issuer=TokenIssuer(accounts, clock, changed),
            audit=SqlAuditStore(database),
            chain=SqlChainStore(database, clock),
            chain_keys=keys,
            idempotency=SqlIdempotencyStore(
                database, clock, claim=timedelta(seconds=settings.http.handler_timeout_seconds) + CLAIM_MARGIN
            ),
            signals=signals,
            ledger=SqlLedger(database, clock, signals),
        )
    finally:
        await database.close()


def open_database(settings: Settings, clock: Clock) -> Database:
    try:
        return Database(settings.database.url.reveal(), pool_size=settings.database.pool_size, clock=clock)
    except ValueError as error:
        raise InvalidConfiguration([f"database.url: {error}"]) from None


def chain_keys(settings: Settings) -> ChainKeys:
    """Raises InvalidConfiguration."""
    keys = [
        key_bytes("keys.audit", settings.keys.audit),
        *(key_bytes(f"keys.audit_previous[{i}]", key) for i, key in enumerate(settings.keys.audit_previous)),
    ]
    return ChainKeys(keys[0], keys[1:])


def key_bytes(name: str, key: Secret) -> bytes:
    """32 bytes from base64. Raises InvalidConfiguration without showing the key."""
    try:
        raw = base64.b64decode(key.reveal(), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidConfiguration([f"{name}: not base64; make one with `openssl rand -base64 32`"]) from None
    if len(raw) < 32:
        raise InvalidConfiguration([f"{name}: {len(raw)} bytes; 32 are needed: `openssl rand -base64 32`"])
    return raw
