"""What an account may hand on. Pure; administration asks before every change.

The threat: somebody with a stolen `accounts:admin` token who wants to end up with more than that token gave. So what
is made or changed never has a permission, a delegation, an address range or a lifetime beyond the actor's own, and
persons, who alone approve and resume, are made by persons.
"""

from datetime import datetime

import msgspec

from opsapi.accounts import delegation
from opsapi.accounts.addresses import AddressSet
from opsapi.accounts.errors import GrantNotAllowed, GrantRule
from opsapi.accounts.model import Account
from opsapi.kit.caller import AccountKind
from opsapi.kit.permissions import Permission


class Authority(msgspec.Struct, frozen=True, kw_only=True):
    """An actor as freshly read: `account` None is the CLI on the machine, which may everything that is not absurd.

    `until`: when the token that it used expires.
    """

    account: Account | None
    until: datetime | None = None

    @property
    def id(self) -> str | None:
        return self.account.id if self.account is not None else None


def check_kind(account: Account) -> None:
    """Raises GrantNotAllowed where a non-person would approve; holds for the CLI too."""
    if account.kind is AccountKind.PERSON:
        return
    approvals = frozenset(grant for grant in account.granted() if grant.permission is Permission.APPROVALS_WRITE)
    if approvals:
        raise GrantNotAllowed(GrantRule.APPROVALS_ARE_FOR_PERSONS, approvals)


def check_touch(actor: Authority, target: Account) -> None:
    """Whether the actor may manage that account at all. Raises GrantNotAllowed."""
    if actor.account is None:
        return
    if target.kind is AccountKind.PERSON and actor.account.kind is not AccountKind.PERSON:
        raise GrantNotAllowed(GrantRule.PERSONS_ARE_MADE_BY_PERSONS)


def check_not_self(actor: Authority, target: Account) -> None:
    """Raises GrantNotAllowed: what limits an account must not be in that account's own hands."""
    if actor.id == target.id:
        raise GrantNotAllowed(GrantRule.OWN_ACCOUNT)


def check_within(actor: Authority, account: Account) -> None:
    """Whether everything that `account` is (after a change) lies within the actor's own. Raises GrantNotAllowed."""
    if actor.account is None:
        return
    own = actor.account
    lacking = own.grants().covers(account.granted())
    if lacking:
        raise GrantNotAllowed(GrantRule.EXCEEDS_OWN_PERMISSIONS, lacking)
    strangers = delegation.excess(own.may_act_for, account.may_act_for)
    if strangers:
        raise GrantNotAllowed(GrantRule.EXCEEDS_OWN_DELEGATION, strangers)
    if own.allowed_addresses:
        # An empty list means anywhere, which no range covers.
        elsewhere = AddressSet(own.allowed_addresses).excess(account.allowed_addresses)
        if elsewhere or not account.allowed_addresses:
            raise GrantNotAllowed(GrantRule.EXCEEDS_OWN_ADDRESSES, elsewhere or ["anywhere"])


def check_lifetime(actor: Authority, expires_at: datetime) -> None:
    """A machine's token makes none that outlives it; persons renew access. Raises GrantNotAllowed."""
    if actor.account is None or actor.until is None or actor.account.kind is AccountKind.PERSON:
        return
    if expires_at > actor.until:
        raise GrantNotAllowed(GrantRule.EXCEEDS_OWN_LIFETIME, [f"later than {actor.until.isoformat()}"])
