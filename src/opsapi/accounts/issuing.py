"""Issues, rotates and revokes tokens."""

from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from opsapi.accounts import checking, rules
from opsapi.accounts.acting import Actor, Work, acting, check_enabled, find_token
from opsapi.accounts.model import IssuedToken, Token
from opsapi.accounts.ports import AccountStore
from opsapi.accounts.tokens import new_secret, sha256
from opsapi.kit.clock import Clock, rfc3339
from opsapi.kit.errors import InvalidState, ResourceNotFound, StateDetails
from opsapi.kit.ids import new_id

LIVE_TOKENS = 10
"""Per account; more are a sign that rotated ones are never revoked."""


class Lifetimes(msgspec.Struct, frozen=True, kw_only=True):
    """A token always expires. `overlap`: how long a rotated one still works."""

    shortest: timedelta = timedelta(minutes=1)
    usual: timedelta = timedelta(days=90)
    longest: timedelta = timedelta(days=366)
    usual_overlap: timedelta = timedelta(hours=24)
    longest_overlap: timedelta = timedelta(days=7)


class TokenIssuer:
    """`changed` as in Administration, and every method may raise what is said there, and InvalidState."""

    def __init__(
        self,
        store: AccountStore,
        clock: Clock,
        changed: Callable[[str], None],
        lifetimes: Lifetimes | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._changed = changed
        self._lifetimes = lifetimes or Lifetimes()

    async def issue(
        self, by: Actor, account_id: str, *, description: str = "", expires_in: str | None = None
    ) -> IssuedToken:
        """Whoever issues a token can be its account, so the account must lie within the actor's own rights."""
        description = checking.label("description", description, longest=200, empty=True)
        life = self.life(expires_in)
        async with acting(self._store, self._clock, by, account_id) as work:
            check_enabled(work.account)
            rules.check_within(work.authority, work.account)
            issued = await self._insert(work, work.now + life, description, replaces=None)
            await work.audit(201, resource(issued.token), f"issue until {rfc3339(issued.token.expires_at)}")
        return issued

    async def rotate(
        self, by: Actor, account_id: str, token_id: str, *, expires_in: str | None, overlap: str | None
    ) -> IssuedToken:
        """A new token; the old one works on until the overlap has passed, or its own end."""
        life = self.life(expires_in)
        grace = checking.span(
            "overlap", overlap, usual=self._lifetimes.usual_overlap, longest=self._lifetimes.longest_overlap
        )
        async with acting(self._store, self._clock, by, account_id) as work:
            check_enabled(work.account)
            rules.check_within(work.authority, work.account)
            tokens = await work.change.tokens(account_id)
            old = _rotatable(tokens, token_id, work.now)
            shortened = msgspec.structs.replace(old, expires_at=min(old.expires_at, work.now + grace))
            await work.change.update_token(shortened)
            issued = await self._insert(work, work.now + life, old.description, replaces=old.id)
            told = f"rotate {old.id}, which works until {rfc3339(shortened.expires_at)}"
            await work.audit(201, resource(issued.token), f"{told}; until {rfc3339(issued.token.expires_at)}")
        self._changed(account_id)
        return issued

    async def revoke(self, by: Actor, account_id: str, token_id: str) -> Token:
        """At once. Doing it again changes nothing."""
        async with acting(self._store, self._clock, by, account_id) as work:
            token = find_token(await work.change.tokens(account_id), token_id)
            if token is None:
                raise ResourceNotFound("token", token_id)
            if token.revoked_at is None:
                token = msgspec.structs.replace(token, revoked_at=work.now, revoked_by=work.actor_id)
                await work.change.update_token(token)
            await work.audit(200, resource(token), "revoke")
        self._changed(account_id)
        return token

    def life(self, expires_in: str | None) -> timedelta:
        """How long such a token would live, the usual time for None. Raises ValidationFailed."""
        ours = self._lifetimes
        return checking.span("expires_in", expires_in, usual=ours.usual, longest=ours.longest, shortest=ours.shortest)

    async def _insert(self, work: Work, expires_at: datetime, description: str, *, replaces: str | None) -> IssuedToken:
        rules.check_lifetime(work.authority, expires_at)
        live = [token for token in await work.change.tokens(work.account.id) if token.is_live(work.now)]
        if len(live) >= LIVE_TOKENS:
            raise InvalidState(
                f"Service account {work.account.id} has {len(live)} live tokens; revoke one first",
                StateDetails(resource_id=work.account.id, state="too_many_live_tokens"),
            )
        secret = new_secret()
        token = Token(
            id=new_id("tok"),
            account_id=work.account.id,
            description=description,
            created_at=work.now,
            created_by=work.actor_id,
            expires_at=expires_at,
            replaces=replaces,
        )
        await work.change.insert_token(token, sha256(secret))
        return IssuedToken(token=token, secret=secret)


def _rotatable(tokens: list[Token], token_id: str, now: datetime) -> Token:
    old = find_token(tokens, token_id)
    if old is None:
        raise ResourceNotFound("token", token_id)
    rotated = any(token.replaces == old.id and token.is_live(now) for token in tokens)
    if rotated or not old.is_live(now):
        state = "revoked" if old.revoked_at else "rotated" if rotated else "expired"
        raise InvalidState(
            f"Token {token_id} is {state} and cannot be rotated",
            StateDetails(resource_id=token_id, state=state, allowed_from=["live"]),
        )
    return old


def resource(token: Token) -> str:
    return f"service-account/{token.account_id}/token/{token.id}"
