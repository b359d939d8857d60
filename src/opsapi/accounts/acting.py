"""A change's transaction: who asks is read afresh in it, so that a right taken a moment ago is not handed on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from opsapi.accounts import rules
from opsapi.accounts.errors import InsufficientInternalPermissions, InvalidServiceAccount
from opsapi.accounts.model import Account, Token
from opsapi.accounts.ports import AccountChange, AccountStore
from opsapi.accounts.rules import Authority
from opsapi.kit.caller import Call, System
from opsapi.kit.clock import Clock
from opsapi.kit.errors import InvalidState, ResourceNotFound, StateDetails
from opsapi.kit.permissions import Permission

Actor = Call | System
NO_ACCOUNT = ""


@dataclass(frozen=True, slots=True)
class Work:
    """`target` is the account acted on, None while one is made; `now` is the change's moment."""

    change: AccountChange
    by: Actor
    authority: Authority
    target: Account | None
    now: datetime

    @property
    def actor_id(self) -> str:
        return self.by.caller.account_id if isinstance(self.by, Call) else self.by.account_id

    @property
    def account(self) -> Account:
        assert self.target is not None
        return self.target

    async def audit(self, status: int, resource: str, change: str) -> None:
        """`change` tells an auditor what the change was, since bodies are not kept."""
        await self.change.audit(self.by, status, resource, at=self.now, reason=change)


@asynccontextmanager
async def acting(store: AccountStore, clock: Clock, by: Actor, account_id: str = NO_ACCOUNT) -> AsyncIterator[Work]:
    """Raises InvalidServiceAccount and InsufficientInternalPermissions where the actor may no longer act,
    ResourceNotFound, and GrantNotAllowed where the target is a person's and the actor is none."""
    asking = None
    if isinstance(by, Call):
        asking = by.caller.account_id
        if account_id:
            # Set before anything can be refused: refusals are audited with what they were about.
            by.audit.resource = f"service-account/{account_id[:80]}"
    async with store.change() as change:
        accounts = await change.lock(*sorted({one for one in (asking, account_id) if one}))
        now = clock.now()
        authority = Authority(account=None)
        if isinstance(by, Call):
            authority = await _authority(change, by, accounts.get(by.caller.account_id), now)
        target = accounts.get(account_id) if account_id else None
        if account_id and target is None:
            raise ResourceNotFound("service account", account_id)
        if target is not None:
            rules.check_touch(authority, target)
        yield Work(change=change, by=by, authority=authority, target=target, now=now)


async def _authority(change: AccountChange, call: Call, account: Account | None, now: datetime) -> Authority:
    caller = call.caller
    if account is None or account.disabled_at is not None:
        raise InvalidServiceAccount(caller.account_id, "disabled")
    token = find_token(await change.tokens(account.id), caller.token_id)
    if token is None or not token.is_live(now):
        raise InvalidServiceAccount(caller.account_id, "revoked")
    if not account.grants().allows(Permission.ACCOUNTS_ADMIN):
        raise InsufficientInternalPermissions(Permission.ACCOUNTS_ADMIN, account.grants())
    return Authority(account=account, until=token.expires_at)


def find_token(tokens: list[Token], token_id: str) -> Token | None:
    return next((token for token in tokens if token.id == token_id), None)


def check_enabled(account: Account) -> None:
    """Raises InvalidState: a disabled account stays disabled, and nothing about it changes any more."""
    if account.disabled_at is not None:
        raise InvalidState(
            f"Service account {account.id} is disabled for good; create a new one",
            StateDetails(resource_id=account.id, state="disabled", allowed_from=["enabled"]),
        )
