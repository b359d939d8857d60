"""The API of accounts and tokens, as declared and as answered."""

from datetime import timedelta

import msgspec
import pytest

from opsapi.accounts.administration import Administration
from opsapi.accounts.endpoints import (
    AccountEndpoints,
    AccountParams,
    AccountsParams,
    CreateAccountBody,
    GrantsBody,
    IssueTokenBody,
    RotateTokenBody,
    TokenParams,
    UpdateAccountBody,
)
from opsapi.accounts.issuing import TokenIssuer
from opsapi.accounts.model import BudgetState, LimitState
from opsapi.kit.caller import AccountKind, Call, Caller
from opsapi.kit.endpoint import Idempotency, NoBody, NoParams, declarations
from opsapi.kit.errors import ResourceNotFound, ValidationFailed
from opsapi.kit.permissions import Permission
from support.accounts import FakeAccountStore, add_account, add_token, call_of, make_account
from support.acting import SetClock

LIMITS = [LimitState(name="health", per_minute=100, remaining=99, reset=1642694400)]


class World:
    def __init__(self) -> None:
        self.clock = SetClock()
        self.store = FakeAccountStore()
        self.forgotten: list[str] = []
        self.endpoints = AccountEndpoints(
            self.store,
            Administration(self.store, self.clock, self.forgotten.append),
            TokenIssuer(self.store, self.clock, self.forgotten.append),
            self._limits_of,
            self._budgets_of,
        )
        self.admin = add_account(
            self.store, make_account("accounts:admin", "workspace:admin", kind=AccountKind.PERSON, id="sa-admin")
        )
        self.token, self.secret = add_token(self.store, self.admin, self.clock)

    async def _budgets_of(self, _caller: Caller) -> list[BudgetState]:
        return [BudgetState(name="changes_per_hour_account", limit=10, left=7)]

    async def _limits_of(self, caller: Caller) -> list[LimitState]:
        return LIMITS if caller.account_id == self.admin.id else []

    def call(self) -> Call:
        return call_of(self.admin, self.token)


@pytest.fixture
def world() -> World:
    return World()


def test_every_route_but_whoami_needs_accounts_admin() -> None:
    needs = {declared.name: declared.permission for declared in declarations(AccountEndpoints)}
    assert needs.pop("whoami") is None
    assert set(needs.values()) == {Permission.ACCOUNTS_ADMIN}
    assert len(needs) == 10


def test_answers_with_a_secret_refuse_the_idempotency_key() -> None:
    refuse = {d.name for d in declarations(AccountEndpoints) if d.idempotency is Idempotency.REFUSED}
    with_secret = {d.name for d in declarations(AccountEndpoints) if d.answer.__name__ == "IssuedToken"}
    assert refuse == with_secret == {"issue_token", "rotate_token"}


def test_every_route_says_what_it_does() -> None:
    for declared in declarations(AccountEndpoints):
        assert declared.summary
        assert declared.description or declared.name == "get_service_account"


async def test_whoami_tells_rights_token_and_limits(world: World) -> None:
    reply = await world.endpoints.whoami(world.call(), NoParams(), NoBody())
    assert reply.data.service_account_id == "sa-admin"
    assert reply.data.permissions == ["accounts:admin", "workspace:admin"]
    assert reply.data.workspaces is None
    assert reply.data.token_expires_at == world.token.expires_at
    assert reply.data.limits == LIMITS
    assert [(one.name, one.left) for one in reply.data.budgets] == [("changes_per_hour_account", 7)]


async def test_whoami_names_the_workspaces_of_a_bound_account(world: World) -> None:
    bound = add_account(world.store, make_account("workspace:read@ws-2", "logs:read@ws-1", "system:read"))
    token, _ = add_token(world.store, bound, world.clock)
    reply = await world.endpoints.whoami(call_of(bound, token), NoParams(), NoBody())
    assert reply.data.workspaces == ["ws-1", "ws-2"]


async def test_an_account_is_created_granted_patched_and_disabled(world: World) -> None:
    body = CreateAccountBody(name="bot", kind=AccountKind.AGENT, permissions=["workspace:read@ws-1"])
    created = (await world.endpoints.create_service_account(world.call(), NoParams(), body)).data
    params = AccountParams(account_id=created.id)
    granted = await world.endpoints.change_grants(world.call(), params, GrantsBody(grant=["workspace:write@ws-1"]))
    assert granted.data.permissions == ["workspace:read@ws-1", "workspace:write@ws-1"]
    patched = await world.endpoints.update_service_account(
        world.call(), params, UpdateAccountBody(allowed_addresses=["192.0.2.0/24"])
    )
    assert patched.data.allowed_addresses == ["192.0.2.0/24"]
    disabled = await world.endpoints.disable_service_account(world.call(), params, NoBody())
    assert disabled.data.disabled_by == "sa-admin"
    shown = await world.endpoints.get_service_account(world.call(), params, NoBody())
    assert shown.data == disabled.data
    assert world.forgotten == [created.id] * 3


async def test_a_secret_is_in_the_first_answer_and_in_no_later_one(world: World) -> None:
    bot = add_account(world.store, make_account())
    params = AccountParams(account_id=bot.id)
    issued = (await world.endpoints.issue_token(world.call(), params, IssueTokenBody(expires_in="1d"))).data
    rotated = await world.endpoints.rotate_token(
        world.call(), TokenParams(account_id=bot.id, token_id=issued.token.id), RotateTokenBody(overlap="0s")
    )
    listed = await world.endpoints.list_tokens(world.call(), params, NoBody())
    revoked = await world.endpoints.revoke_token(
        world.call(), TokenParams(account_id=bot.id, token_id=rotated.data.token.id), NoBody()
    )
    shown = msgspec.json.encode([listed.data, revoked.data])
    assert len(listed.data.tokens) == 2
    assert issued.token.expires_at == world.clock.now() + timedelta(days=1)
    for secret in (issued.secret, rotated.data.secret):
        assert secret.encode() not in shown
        assert secret.encode() in msgspec.json.encode([issued, rotated.data])


async def test_the_list_is_paged_by_a_cursor_of_its_own(world: World) -> None:
    for number in range(5):
        add_account(world.store, make_account(id=f"sa-b{number}", kind=AccountKind.AGENT))
    seen: list[str] = []
    cursor = None
    while True:
        params = AccountsParams(kind=AccountKind.AGENT, limit=2, cursor=cursor)
        reply = await world.endpoints.list_service_accounts(world.call(), params, NoBody())
        seen += [account.id for account in reply.data.service_accounts]
        assert reply.truncated is (reply.next_cursor is not None)
        if reply.next_cursor is None:
            break
        cursor = reply.next_cursor
    assert seen == ["sa-b0", "sa-b1", "sa-b2", "sa-b3", "sa-b4"]
    with pytest.raises(ValidationFailed):
        await world.endpoints.list_service_accounts(world.call(), AccountsParams(cursor=cursor), NoBody())


async def test_tokens_of_an_unknown_account_are_not_found(world: World) -> None:
    with pytest.raises(ResourceNotFound):
        await world.endpoints.list_tokens(world.call(), AccountParams(account_id="sa-none"), NoBody())


@pytest.mark.parametrize(
    ("body", "raw"),
    [
        (CreateAccountBody, b'{"name":"x","kind":"robot"}'),
        (CreateAccountBody, b'{"name":"x","kind":"agent","id":"sa-mine"}'),
        (CreateAccountBody, b'{"name":"x","kind":"agent","created_by":"system:cli"}'),
        (UpdateAccountBody, b'{"kind":"person"}'),
        (UpdateAccountBody, b'{"permissions":["accounts:admin"]}'),
        (UpdateAccountBody, b'{"disabled_at":null}'),
        (IssueTokenBody, b'{"secret":"opsa_x"}'),
        (GrantsBody, b'{"grant":"workspace:read"}'),
    ],
)
def test_bodies_take_no_fields_but_their_own(body: type[msgspec.Struct], raw: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(raw, type=body)
