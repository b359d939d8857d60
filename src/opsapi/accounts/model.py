"""Accounts and tokens. The Structs are what the API answers; a token's text and its hash are in none of them."""

from collections.abc import Awaitable, Callable
from datetime import datetime

import msgspec

from opsapi.kit.caller import AccountKind, Caller
from opsapi.kit.permissions import Grant, Grants


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """`allowed_addresses`: CIDRs from which it may be used, empty for anywhere. `may_act_for`: whom
    `X-On-Behalf-Of` may name: exact names, `*@example.com` for a domain, `*` for anybody; empty for nobody."""

    id: str
    name: str
    kind: AccountKind
    description: str
    permissions: list[str]
    allowed_addresses: list[str]
    may_act_for: list[str]
    created_at: datetime
    created_by: str
    updated_at: datetime
    disabled_at: datetime | None = None
    disabled_by: str | None = None

    def granted(self) -> frozenset[Grant]:
        """Without what this release does not know: another release's permission gives nothing here."""
        return frozenset(grant for grant in map(_known, self.permissions) if grant is not None)

    def grants(self) -> Grants:
        return Grants(self.granted())


def _known(text: str) -> Grant | None:
    try:
        return Grant.parse(text)
    except ValueError:
        return None


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """`replaces`: the token that this one was rotated from. Uses are noted about once a minute."""

    id: str
    account_id: str
    description: str
    created_at: datetime
    created_by: str
    expires_at: datetime
    revoked_at: datetime | None = None
    revoked_by: str | None = None
    replaces: str | None = None
    last_used_at: datetime | None = None
    last_used_address: str | None = None

    def is_live(self, now: datetime) -> bool:
        return self.revoked_at is None and now < self.expires_at


class IssuedToken(msgspec.Struct, frozen=True, kw_only=True):
    """`secret` is shown here, once: nobody can read it again."""

    token: Token
    secret: str

    def __repr__(self) -> str:
        return f"IssuedToken(token={self.token!r}, secret=(hidden))"


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """A token with its account, as looked up by the SHA-256 of the token's text."""

    account: Account
    token: Token
    sha256: bytes


class TokenUse(msgspec.Struct, frozen=True, kw_only=True):
    token_id: str
    at: datetime
    address: str


class LimitState(msgspec.Struct, frozen=True, kw_only=True):
    """A rate limit and where the caller stands in it; `remaining` null where the limit is counted per resource."""

    name: str
    per_minute: int
    remaining: int | None = None
    reset: int | None = None


class BudgetState(msgspec.Struct, frozen=True, kw_only=True):
    """A limit of the policy and what is left of it; null where the account's kind is not held to it."""

    name: str
    limit: int | None
    left: int | None


LimitsOf = Callable[[Caller], Awaitable[list[LimitState]]]
BudgetsOf = Callable[[Caller], Awaitable[list[BudgetState]]]
