"""Accounts and tokens: what is made, what is refused, and that it counts at once."""

from datetime import timedelta

import msgspec
import pytest

from opsapi.accounts.administration import AccountPatch, Administration, NewAccount
from opsapi.accounts.authentication import Authenticator
from opsapi.accounts.errors import (
    GrantDetails,
    GrantNotAllowed,
    GrantRule,
    InsufficientInternalPermissions,
    InvalidServiceAccount,
)
from opsapi.accounts.issuing import LIVE_TOKENS, TokenIssuer
from opsapi.accounts.tokens import sha256, well_formed
from opsapi.kit.caller import AccountKind, Call
from opsapi.kit.errors import FieldsDetails, InvalidState, ResourceNotFound, ValidationFailed
from support.accounts import OPERATOR, FakeAccountStore, add_account, add_token, call_of, make_account
from support.acting import SetClock

HERE = "192.0.2.7"


class World:
    """A person who administers, an agent, and what manages them."""

    def __init__(self) -> None:
        self.clock = SetClock()
        self.store = FakeAccountStore()
        self.auth = Authenticator(self.store, self.clock)
        self.administration = Administration(self.store, self.clock, self.auth.forget)
        self.issuer = TokenIssuer(self.store, self.clock, self.auth.forget)
        self.admin = add_account(self.store, make_account("accounts:admin", "workspace:admin", kind=AccountKind.PERSON))
        self.admin_token, _ = add_token(self.store, self.admin, self.clock)
        self.agent = add_account(self.store, make_account("workspace:read@ws-1", kind=AccountKind.AGENT))
        self.token, self.secret = add_token(self.store, self.agent, self.clock)

    def call(self) -> Call:
        return call_of(self.store.by_id[self.admin.id], self.admin_token)


@pytest.fixture
def world() -> World:
    return World()


def rule_of(caught: pytest.ExceptionInfo[GrantNotAllowed]) -> str:
    details = caught.value.details
    assert isinstance(details, GrantDetails)
    return details.rule


async def test_the_cli_makes_the_first_admin_with_a_token_that_works(world: World) -> None:
    new = NewAccount(name="root", kind=AccountKind.PERSON, permissions=["accounts:admin", "approvals:write"])
    account = await world.administration.create(OPERATOR, new)
    issued = await world.issuer.issue(OPERATOR, account.id, description="first")
    assert account.created_by == issued.token.created_by == "system:cli"
    assert well_formed(issued.secret)
    caller = await world.auth.authenticate(account.id, issued.secret, HERE)
    assert caller.kind is AccountKind.PERSON
    assert [(who, status) for who, status, _ in world.store.audited] == [("system:cli", 201)] * 2


async def test_the_store_gets_the_hash_only_and_representations_hide_the_secret(world: World) -> None:
    issued = await world.issuer.issue(world.call(), world.agent.id)
    assert world.store.hashes[sha256(issued.secret)] == issued.token.id
    kept = repr((world.store.by_id, world.store.tokens_by_id, world.store.hashes, world.store.audited, issued))
    assert issued.secret not in kept


async def test_a_person_makes_an_account_within_their_own_rights(world: World) -> None:
    call = world.call()
    new = NewAccount(
        name=" Deploy bot ",
        kind=AccountKind.AGENT,
        permissions=["workspace:write@ws-1", "workspace:write@ws-1"],
        allowed_addresses=["10.0.0.0/8", "10.0.0.1"],
    )
    account = await world.administration.create(call, new)
    assert account.name == "Deploy bot"
    assert account.permissions == ["workspace:write@ws-1"]
    assert account.allowed_addresses == ["10.0.0.0/8", "10.0.0.1/32"]
    assert account.created_by == world.admin.id
    assert call.audit.committed
    assert world.store.audited == [(world.admin.id, 201, f"service-account/{account.id}")]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a\x1b[31mb"}, "name"),
        ({"description": "a\u202eb"}, "description"),
        ({"permissions": ["workspace:read", "workspace:fly"]}, "permissions[1]"),
        ({"permissions": ["accounts:admin@ws-1"]}, "permissions[0]"),
        ({"permissions": ["workspace:read@../x"]}, "permissions[0]"),
        ({"allowed_addresses": ["10.0.0.1/8"]}, "allowed_addresses[0]"),
        ({"may_act_for": ["a b"]}, "may_act_for[0]"),
        ({"permissions": ["workspace:read"] * 201}, "permissions"),
    ],
)
async def test_bad_fields_are_named_and_nothing_is_made(world: World, fields: dict[str, object], named: str) -> None:
    new = msgspec.structs.replace(NewAccount(name="x", kind=AccountKind.AGENT), **fields)
    with pytest.raises(ValidationFailed) as caught:
        await world.administration.create(OPERATOR, new)
    details = caught.value.details
    assert isinstance(details, FieldsDetails)
    assert list(details.fields) == [named]
    assert len(world.store.by_id) == 2
    assert world.store.audited == []


@pytest.mark.parametrize("by_cli", [True, False])
async def test_only_persons_hold_approvals_whoever_asks(world: World, by_cli: bool) -> None:
    by = OPERATOR if by_cli else world.call()
    new = NewAccount(name="x", kind=AccountKind.AGENT, permissions=["approvals:write@ws-1"])
    with pytest.raises(GrantNotAllowed) as caught:
        await world.administration.create(by, new)
    assert rule_of(caught) == GrantRule.APPROVALS_ARE_FOR_PERSONS
    with pytest.raises(GrantNotAllowed):
        await world.administration.regrant(OPERATOR, world.agent.id, grant=["approvals:write"], revoke=[])


async def test_an_agent_manages_no_persons(world: World) -> None:
    robot = add_account(world.store, make_account("accounts:admin", "workspace:admin", kind=AccountKind.AGENT))
    token, _ = add_token(world.store, robot, world.clock)

    def call() -> Call:
        return call_of(robot, token)

    with pytest.raises(GrantNotAllowed) as caught:
        await world.administration.create(call(), NewAccount(name="x", kind=AccountKind.PERSON))
    assert rule_of(caught) == GrantRule.PERSONS_ARE_MADE_BY_PERSONS
    with pytest.raises(GrantNotAllowed):
        await world.issuer.issue(call(), world.admin.id)
    with pytest.raises(GrantNotAllowed):
        await world.administration.disable(call(), world.admin.id)
    with pytest.raises(GrantNotAllowed):
        await world.issuer.revoke(call(), world.admin.id, world.admin_token.id)
    assert world.store.by_id[world.admin.id].disabled_at is None


async def test_nobody_changes_their_own_account(world: World) -> None:
    for deed in (
        world.administration.regrant(world.call(), world.admin.id, grant=["workspace:read"], revoke=[]),
        world.administration.update(world.call(), world.admin.id, AccountPatch(allowed_addresses=[])),
        world.administration.disable(world.call(), world.admin.id),
    ):
        with pytest.raises(GrantNotAllowed) as caught:
            await deed
        assert rule_of(caught) == GrantRule.OWN_ACCOUNT


async def test_granting_beyond_ones_own_rights_names_the_excess(world: World) -> None:
    with pytest.raises(GrantNotAllowed) as caught:
        await world.administration.regrant(
            world.call(), world.agent.id, grant=["logs:read", "workspace:write@ws-1", "audit:read@ws-1"], revoke=[]
        )
    details = caught.value.details
    assert isinstance(details, GrantDetails)
    assert details.refused == ["audit:read@ws-1", "logs:read"]
    assert world.store.by_id[world.agent.id] == world.agent


async def test_a_token_for_a_mightier_account_is_refused(world: World) -> None:
    mighty = add_account(world.store, make_account("workspaces:admin"))
    with pytest.raises(GrantNotAllowed) as caught:
        await world.issuer.issue(world.call(), mighty.id)
    assert rule_of(caught) == GrantRule.EXCEEDS_OWN_PERMISSIONS


async def test_revoking_a_grant_counts_at_once(world: World) -> None:
    await world.auth.authenticate(world.agent.id, world.secret, HERE)
    await world.administration.regrant(
        world.call(), world.agent.id, grant=["workspace:write@ws-2"], revoke=["workspace:read@ws-1", "logs:read"]
    )
    caller = await world.auth.authenticate(world.agent.id, world.secret, HERE)
    assert caller.grants.names() == ["workspace:write@ws-2"]


async def test_the_audit_is_told_what_changed_but_no_secret(world: World) -> None:
    calls = [world.call() for _ in range(5)]
    await world.administration.regrant(calls[0], world.agent.id, grant=["workspace:write"], revoke=["logs:read"])
    await world.administration.update(calls[1], world.agent.id, AccountPatch(allowed_addresses=[], may_act_for=[]))
    issued = await world.issuer.issue(calls[2], world.agent.id, expires_in="1d")
    rotated = await world.issuer.rotate(calls[3], world.agent.id, world.token.id, expires_in="2d", overlap="1h")
    await world.administration.disable(calls[4], world.agent.id)
    assert [call.audit.reason for call in calls] == [
        "grant workspace:write; revoke logs:read",
        "set allowed_addresses (none); may_act_for (none)",
        "issue until 2024-01-21T12:00:00Z",
        f"rotate {world.token.id}, which works until 2024-01-20T13:00:00Z; until 2024-01-22T12:00:00Z",
        "disable",
    ]
    told = repr(calls)
    assert issued.secret not in told
    assert rotated.secret not in told


async def test_disabling_counts_at_once_for_good_and_twice_is_once(world: World) -> None:
    await world.auth.authenticate(world.agent.id, world.secret, HERE)
    first = await world.administration.disable(world.call(), world.agent.id)
    with pytest.raises(InvalidServiceAccount):
        await world.auth.authenticate(world.agent.id, world.secret, HERE)
    world.clock.advance(60)
    assert await world.administration.disable(world.call(), world.agent.id) == first
    for deed in (
        world.issuer.issue(world.call(), world.agent.id),
        world.administration.regrant(world.call(), world.agent.id, grant=[], revoke=[]),
        world.administration.update(world.call(), world.agent.id, AccountPatch(name="x")),
        world.issuer.rotate(world.call(), world.agent.id, world.token.id, expires_in=None, overlap=None),
    ):
        with pytest.raises(InvalidState):
            await deed


async def test_a_patch_changes_what_it_names_only(world: World) -> None:
    after = await world.administration.update(
        world.call(), world.agent.id, AccountPatch(allowed_addresses=["192.0.2.0/24"])
    )
    expected = msgspec.structs.replace(world.agent, allowed_addresses=["192.0.2.0/24"], updated_at=world.clock.now())
    assert after == expected == world.store.by_id[world.agent.id]


async def test_a_rotated_token_works_until_its_overlap_has_passed(world: World) -> None:
    issued = await world.issuer.rotate(world.call(), world.agent.id, world.token.id, expires_in="30d", overlap="2h")
    assert issued.token.replaces == world.token.id
    assert issued.token.expires_at == world.clock.now() + timedelta(days=30)
    for secret in (world.secret, issued.secret):
        await world.auth.authenticate(world.agent.id, secret, HERE)
    world.clock.advance(2 * 3600)
    with pytest.raises(InvalidServiceAccount):
        await world.auth.authenticate(world.agent.id, world.secret, HERE)
    await world.auth.authenticate(world.agent.id, issued.secret, HERE)


async def test_rotation_never_prolongs_the_old_token(world: World) -> None:
    world.clock.at = world.token.expires_at - timedelta(minutes=5)
    call = world.call()
    admin_token = msgspec.structs.replace(world.admin_token, expires_at=world.clock.now() + timedelta(days=1))
    world.store.tokens_by_id[world.admin_token.id] = admin_token
    await world.issuer.rotate(call, world.agent.id, world.token.id, expires_in=None, overlap="7d")
    assert world.store.tokens_by_id[world.token.id].expires_at == world.token.expires_at


async def test_a_token_is_rotated_once(world: World) -> None:
    await world.issuer.rotate(world.call(), world.agent.id, world.token.id, expires_in=None, overlap=None)
    with pytest.raises(InvalidState, match="rotated"):
        await world.issuer.rotate(world.call(), world.agent.id, world.token.id, expires_in=None, overlap=None)


async def test_a_revoked_token_stops_at_once_and_cannot_be_rotated(world: World) -> None:
    await world.auth.authenticate(world.agent.id, world.secret, HERE)
    first = await world.issuer.revoke(world.call(), world.agent.id, world.token.id)
    with pytest.raises(InvalidServiceAccount):
        await world.auth.authenticate(world.agent.id, world.secret, HERE)
    world.clock.advance(1)
    assert await world.issuer.revoke(world.call(), world.agent.id, world.token.id) == first
    with pytest.raises(InvalidState, match="revoked"):
        await world.issuer.rotate(world.call(), world.agent.id, world.token.id, expires_in=None, overlap=None)


async def test_a_token_is_addressed_through_its_own_account_only(world: World) -> None:
    other = add_account(world.store, make_account())
    with pytest.raises(ResourceNotFound):
        await world.issuer.revoke(world.call(), other.id, world.token.id)
    with pytest.raises(ResourceNotFound):
        await world.issuer.rotate(world.call(), other.id, world.token.id, expires_in=None, overlap=None)
    with pytest.raises(ResourceNotFound):
        await world.issuer.issue(world.call(), "sa-none")


@pytest.mark.parametrize("text", ["0s", "59s", "367d", "-1d", "forever", ""])
async def test_a_lifetime_out_of_range_is_refused(world: World, text: str) -> None:
    with pytest.raises(ValidationFailed):
        await world.issuer.issue(world.call(), world.agent.id, expires_in=text)


async def test_live_tokens_are_bounded(world: World) -> None:
    for _ in range(LIVE_TOKENS - 1):
        await world.issuer.issue(world.call(), world.agent.id)
    with pytest.raises(InvalidState, match="live tokens"):
        await world.issuer.issue(world.call(), world.agent.id)
    await world.issuer.revoke(world.call(), world.agent.id, world.token.id)
    await world.issuer.issue(world.call(), world.agent.id)


async def test_who_lost_the_right_a_moment_ago_hands_nothing_on(world: World) -> None:
    call = world.call()
    world.store.by_id[world.admin.id] = msgspec.structs.replace(world.admin, permissions=["workspace:admin"])
    with pytest.raises(InsufficientInternalPermissions):
        await world.issuer.issue(call, world.agent.id)
    world.store.by_id[world.admin.id] = world.admin
    world.store.tokens_by_id[world.admin_token.id] = msgspec.structs.replace(
        world.admin_token, revoked_at=world.clock.now()
    )
    with pytest.raises(InvalidServiceAccount):
        await world.issuer.issue(call, world.agent.id)
    world.store.by_id[world.admin.id] = msgspec.structs.replace(world.admin, disabled_at=world.clock.now())
    with pytest.raises(InvalidServiceAccount):
        await world.administration.create(call, NewAccount(name="x", kind=AccountKind.AGENT))
    assert world.store.audited == []
    assert not call.audit.committed
