"""The rules of handing on, as an attacker would try them: whoever starts with a stolen `accounts:admin` token and
does whatever they like ends up with nothing that the token did not give."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from opsapi.accounts import delegation
from opsapi.accounts.addresses import AddressSet
from opsapi.accounts.administration import AccountPatch, Administration, NewAccount
from opsapi.accounts.issuing import TokenIssuer
from opsapi.accounts.model import Account, Token
from opsapi.kit.caller import AccountKind
from opsapi.kit.errors import OpsError
from support.accounts import FakeAccountStore, add_account, add_token, call_of, make_account
from support.acting import SetClock

PERMISSIONS = st.lists(
    st.sampled_from(
        [
            "accounts:admin",
            "approvals:write",
            "audit:read",
            "logs:read@ws-1",
            "workspace:admin",
            "workspace:admin@ws-1",
            "workspace:read",
            "workspace:write@ws-1",
            "workspace:write@ws-2",
            "workspaces:admin",
        ]
    ),
    max_size=5,
    unique=True,
)
RANGES = st.lists(st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "2001:db8::/32"]), max_size=2, unique=True)
DELEGATES = st.lists(st.sampled_from(["*", "*@a.test", "x@a.test", "z"]), max_size=2, unique=True)
KINDS = st.sampled_from(list(AccountKind))
NUMBER = st.integers(0, 9)
DEEDS = st.lists(
    st.one_of(
        st.tuples(st.just("create"), NUMBER, KINDS, PERMISSIONS, RANGES, DELEGATES),
        st.tuples(st.just("grant"), NUMBER, NUMBER, PERMISSIONS, PERMISSIONS),
        st.tuples(st.just("update"), NUMBER, NUMBER, RANGES, DELEGATES),
        st.tuples(st.just("issue"), NUMBER, NUMBER),
        st.tuples(st.just("rotate"), NUMBER, NUMBER),
    ),
    max_size=12,
)


class Attack:
    """Uses every account whose token it holds; `held` are their tokens, the stolen one first."""

    def __init__(self, stolen: Account, others: list[Account]) -> None:
        self.clock = SetClock()
        self.store = FakeAccountStore()
        self.start = stolen
        self.accounts = [add_account(self.store, account).id for account in [stolen, *others]]
        for account in others:
            add_token(self.store, account, self.clock)
        self.held: list[Token] = [add_token(self.store, stolen, self.clock)[0]]
        self.administration = Administration(self.store, self.clock, lambda _: None)
        self.issuer = TokenIssuer(self.store, self.clock, lambda _: None)

    async def run(self, deeds: list[Any]) -> None:
        for name, as_whom, *rest in deeds:
            token = self.held[as_whom % len(self.held)]
            call = call_of(self.store.by_id[token.account_id], token)
            try:
                await getattr(self, "_" + name)(call, *rest)
            except OpsError:
                continue

    async def _create(self, call: Any, kind: AccountKind, permissions: Any, ranges: Any, delegates: Any) -> None:
        new = NewAccount(name="x", kind=kind, permissions=permissions, allowed_addresses=ranges, may_act_for=delegates)
        self.accounts.append((await self.administration.create(call, new)).id)

    async def _grant(self, call: Any, target: int, grant: Any, revoke: Any) -> None:
        await self.administration.regrant(call, self._target(target), grant=grant, revoke=revoke)

    async def _update(self, call: Any, target: int, ranges: Any, delegates: Any) -> None:
        patch = AccountPatch(allowed_addresses=ranges, may_act_for=delegates)
        await self.administration.update(call, self._target(target), patch)

    async def _issue(self, call: Any, target: int) -> None:
        self.held.append((await self.issuer.issue(call, self._target(target))).token)

    async def _rotate(self, call: Any, target: int) -> None:
        tokens = await self.store.tokens(self._target(target))
        if tokens:
            rotated = await self.issuer.rotate(call, tokens[0].account_id, tokens[0].id, expires_in=None, overlap=None)
            self.held.append(rotated.token)

    def _target(self, number: int) -> str:
        return self.accounts[number % len(self.accounts)]


def accounts_of(permissions: list[str], kind: AccountKind, ranges: list[str], delegates: list[str]) -> Account:
    return make_account(*permissions, kind=kind, allowed_addresses=ranges, may_act_for=delegates)


@settings(max_examples=200, deadline=None)
@given(
    st.builds(accounts_of, PERMISSIONS.map(lambda p: sorted({*p, "accounts:admin"})), KINDS, RANGES, DELEGATES),
    st.lists(st.builds(accounts_of, PERMISSIONS, KINDS, RANGES, DELEGATES), max_size=3),
    DEEDS,
)
def test_nobody_ends_up_with_more_than_they_started_with(stolen: Account, others: list[Account], deeds: Any) -> None:
    attack = Attack(stolen, others)
    asyncio.run(attack.run(deeds))
    for token in attack.held:
        reached = attack.store.by_id[token.account_id]
        assert stolen.grants().covers(reached.granted()) == frozenset()
        assert delegation.excess(stolen.may_act_for, reached.may_act_for) == []
        assert reached.kind is not AccountKind.PERSON or stolen.kind is AccountKind.PERSON
        if stolen.allowed_addresses:
            assert reached.allowed_addresses
            assert AddressSet(stolen.allowed_addresses).excess(reached.allowed_addresses) == []
        if stolen.kind is not AccountKind.PERSON:
            assert token.expires_at <= attack.held[0].expires_at


@settings(max_examples=200, deadline=None)
@given(
    st.builds(accounts_of, PERMISSIONS.map(lambda p: sorted({*p, "accounts:admin"})), KINDS, RANGES, DELEGATES),
    st.lists(st.builds(accounts_of, PERMISSIONS, KINDS, RANGES, DELEGATES), max_size=3),
    DEEDS,
)
def test_no_account_that_existed_gains_what_the_attacker_lacked(
    stolen: Account, others: list[Account], deeds: Any
) -> None:
    attack = Attack(stolen, others)
    asyncio.run(attack.run(deeds))
    for before in [stolen, *others]:
        after = attack.store.by_id[before.id]
        gained = after.granted() - before.granted()
        assert stolen.grants().covers(gained) == frozenset()
        assert before.id != stolen.id or after == stolen
        if after != before and before.kind is AccountKind.PERSON:
            assert stolen.kind is AccountKind.PERSON


@settings(max_examples=100, deadline=None)
@given(DEEDS)
def test_only_persons_ever_gain_approvals(deeds: Any) -> None:
    mighty = make_account("accounts:admin", "approvals:write", kind=AccountKind.PERSON, may_act_for=["*"])
    attack = Attack(mighty, [make_account()])
    asyncio.run(attack.run(deeds))
    for account in attack.store.by_id.values():
        assert "approvals:write" not in account.permissions or account.kind is AccountKind.PERSON
