"""The API of accounts and tokens, and `whoami`."""

from datetime import datetime
from typing import Annotated

import msgspec

from opsapi.accounts.administration import AccountPatch, Administration, NewAccount
from opsapi.accounts.errors import GrantNotAllowed
from opsapi.accounts.issuing import TokenIssuer
from opsapi.accounts.model import Account, BudgetsOf, BudgetState, IssuedToken, LimitsOf, LimitState, Token
from opsapi.accounts.ports import AccountStore
from opsapi.kit.caller import AccountKind, Call
from opsapi.kit.cursor import decode_cursor, encode_cursor
from opsapi.kit.endpoint import (
    OTHER,
    Body,
    Idempotency,
    NoBody,
    NoParams,
    Params,
    Reply,
    Scope,
    endpoint,
)
from opsapi.kit.errors import DependencyUnavailable, InvalidState, ResourceNotFound, ValidationFailed
from opsapi.kit.permissions import Permission

_TAG = "Service accounts"
_ACCOUNTS = "/internal/v1/service-accounts"
_ACCOUNT = _ACCOUNTS + "/{account_id}"
_TOKENS = _ACCOUNT + "/tokens"
_TOKEN = _TOKENS + "/{token_id}"
_REFUSALS = (GrantNotAllowed, ResourceNotFound, ValidationFailed, InvalidState, DependencyUnavailable)
_CURSOR = "service-accounts"

Texts = Annotated[list[str], msgspec.Meta(max_length=200)]


class AccountsParams(Params, frozen=True, kw_only=True):
    kind: AccountKind | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 50
    cursor: str | None = None


class AccountParams(Params, frozen=True, kw_only=True):
    account_id: str


class TokenParams(Params, frozen=True, kw_only=True):
    account_id: str
    token_id: str


class CreateAccountBody(Body, frozen=True, kw_only=True):
    """Addresses are CIDRs, empty for anywhere; `may_act_for`: names, `*@domain` or `*`, empty for nobody."""

    name: str
    kind: AccountKind
    description: str = ""
    permissions: Texts = msgspec.field(default_factory=list)
    allowed_addresses: Texts = msgspec.field(default_factory=list)
    may_act_for: Texts = msgspec.field(default_factory=list)


class UpdateAccountBody(Body, frozen=True, kw_only=True):
    """What is left out, or null, stays as it is."""

    name: str | None = None
    description: str | None = None
    allowed_addresses: Texts | None = None
    may_act_for: Texts | None = None


class GrantsBody(Body, frozen=True, kw_only=True):
    """Permissions like `workspace:read` or `workspace:admin@ws-123`. `revoke` is applied before `grant`."""

    grant: Texts = msgspec.field(default_factory=list)
    revoke: Texts = msgspec.field(default_factory=list)


class IssueTokenBody(Body, frozen=True, kw_only=True):
    """`expires_in` like `90d`."""

    description: str = ""
    expires_in: str | None = None


class RotateTokenBody(Body, frozen=True, kw_only=True):
    """`overlap`: how long the old token still works, like `24h`; `0s` ends it at once."""

    expires_in: str | None = None
    overlap: str | None = None


class AccountList(msgspec.Struct, frozen=True, kw_only=True):
    service_accounts: list[Account]


class TokenList(msgspec.Struct, frozen=True, kw_only=True):
    tokens: list[Token]


class WhoAmI(msgspec.Struct, frozen=True, kw_only=True):
    """`workspaces` null: every one. `limits`: requests a minute; `budgets`: what policy lets the account begin yet."""

    service_account_id: str
    name: str
    kind: AccountKind
    permissions: list[str]
    workspaces: list[str] | None
    address: str
    on_behalf_of: str | None
    agent_run: str | None
    token_id: str
    token_expires_at: datetime
    limits: list[LimitState]
    budgets: list[BudgetState]


class _Position(msgspec.Struct, frozen=True):
    after: str


class AccountEndpoints:
    def __init__(
        self,
        store: AccountStore,
        administration: Administration,
        issuer: TokenIssuer,
        limits_of: LimitsOf,
        budgets_of: BudgetsOf,
    ) -> None:
        self._store = store
        self._administration = administration
        self._issuer = issuer
        self._limits_of = limits_of
        self._budgets_of = budgets_of

    @endpoint(
        "GET",
        "/internal/v1/whoami",
        permission=None,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.SAFE,
        fields=True,
        summary="Who am I, and what may I do",
        tag=_TAG,
        answer=WhoAmI,
        errors=(DependencyUnavailable,),
    )
    async def whoami(self, call: Call, _params: NoParams, _body: NoBody) -> Reply[WhoAmI]:
        """The caller's account, permissions, the token's end, and the rate limits and the policy's budgets with what is
        left of them: changes that it may begin yet within the hour, and requests that may wait for a person."""
        caller = call.caller
        account = await self._administration.get(caller.account_id)
        token = await self._store.token(caller.token_id)
        if token is None:
            raise ResourceNotFound("token", caller.token_id)
        grants = caller.grants
        return Reply(
            WhoAmI(
                service_account_id=caller.account_id,
                name=account.name,
                kind=caller.kind,
                permissions=grants.names(),
                workspaces=None
                if grants.sees_every_workspace
                else sorted({g.workspace for g in grants.granted} - {""}),
                address=caller.address,
                on_behalf_of=caller.on_behalf_of,
                agent_run=caller.agent_run,
                token_id=token.id,
                token_expires_at=token.expires_at,
                limits=await self._limits_of(caller),
                budgets=await self._budgets_of(caller),
            )
        )

    @endpoint(
        "GET",
        _ACCOUNTS,
        permission=Permission.ACCOUNTS_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.SAFE,
        fields=True,
        summary="List service accounts",
        tag=_TAG,
        answer=AccountList,
        errors=(ValidationFailed, DependencyUnavailable),
    )
    async def list_service_accounts(self, _call: Call, params: AccountsParams, _body: NoBody) -> Reply[AccountList]:
        """By id; disabled ones too."""
        purpose = f"{_CURSOR}:{params.kind or ''}"
        after = decode_cursor(purpose, params.cursor, _Position).after if params.cursor is not None else ""
        found = await self._store.accounts(after=after, limit=params.limit + 1, kind=params.kind)
        page = found[: params.limit]
        more = len(found) > params.limit
        return Reply(
            AccountList(service_accounts=page),
            truncated=more,
            next_cursor=encode_cursor(purpose, _Position(page[-1].id)) if more else None,
        )

    @endpoint(
        "POST",
        _ACCOUNTS,
        permission=Permission.ACCOUNTS_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.KEYED,
        summary="Create a service account",
        tag=_TAG,
        answer=Account,
        body=CreateAccountBody,
        success=(201,),
        errors=_REFUSALS,
    )
    async def create_service_account(self, call: Call, _params: NoParams, body: CreateAccountBody) -> Reply[Account]:
        """Within the caller's own rights: permissions, delegation and addresses. It has no token yet. Accounts of
        kind person are created by persons, and only they may hold `approvals:write`."""
        new = NewAccount(
            name=body.name,
            kind=body.kind,
            description=body.description,
            permissions=body.permissions,
            allowed_addresses=body.allowed_addresses,
            may_act_for=body.may_act_for,
        )
        return Reply(await self._administration.create(call, new))

    @endpoint(
        "GET",
        _ACCOUNT,
        permission=Permission.ACCOUNTS_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.SAFE,
        fields=True,
        summary="Get a service account",
        tag=_TAG,
        answer=Account,
        params=AccountParams,
        errors=(ResourceNotFound, DependencyUnavailable),
    )
    async def get_service_account(self, _call: Call, params: AccountParams, _body: NoBody) -> Reply[Account]:
        return Reply(await self._administration.get(params.account_id))

    @endpoint(
        "PATCH",
        _ACCOUNT,
        permission=Permission.ACCOUNTS_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.KEYED,
        summary="Change a service account",
        tag=_TAG,
        answer=Account,
        params=AccountParams,
        body=UpdateAccountBody,
        errors=_REFUSALS,
    )
    async def update_service_account(
        self, call: Call, params: AccountParams, body: UpdateAccountBody
    ) -> Reply[Account]:
        """Name, description, addresses and delegation; permissions change at `…/grants`."""
        patch = AccountPatch(
            name=body.name,
            description=body.description,
            allowed_addresses=body.allowed_addresses,
            may_act_for=body.may_act_for,
        )
        return Reply(await self._administration.update(call, params.account_id, patch))

    @endpoint(
        "DELETE",
        _ACCOUNT,
        permission=Permission.ACCOUNTS_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.NATURAL,
        summary="Disable a service account",
        tag=_TAG,
        answer=Account,
        params=AccountParams,
        errors=_REFUSALS,
    )
    async def disable_service_account(self, call: Call, params: AccountParams, _body: NoBody) -> Reply[Account]:
        """For good, and at once: all its tokens stop working. The account stays listed, for the audit."""
        return Reply(await self._administration.disable(call, params.account_id))

    @endpoint(
        "POST",
        _ACCOUNT + "/grants",
        permission=Permission.ACCOUNTS_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.KEYED,
        summary="Grant and revoke permissions",
        tag=_TAG,
        answer=Account,
        params=AccountParams,
        body=GrantsBody,
        errors=_REFUSALS,
    )
    async def change_grants(self, call: Call, params: AccountParams, body: GrantsBody) -> Reply[Account]:
        """Nobody grants what they lack, and nobody changes their own grants."""
        account = await self._administration.regrant(call, params.account_id, grant=body.grant, revoke=body.revoke)
        return Reply(account)

    @endpoint(
        "GET",
        _TOKENS,
        permission=Permission.ACCOUNTS_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.SAFE,
        fields=True,
        summary="List an account's tokens",
        tag=_TAG,
        answer=TokenList,
        params=AccountParams,
        errors=(ResourceNotFound, DependencyUnavailable),
    )
    async def list_tokens(self, _call: Call, params: AccountParams, _body: NoBody) -> Reply[TokenList]:
        """Their states and last uses, the newest first; never their text."""
        await self._administration.get(params.account_id)
        return Reply(TokenList(tokens=await self._store.tokens(params.account_id)))

    @endpoint(
        "POST",
        _TOKENS,
        permission=Permission.ACCOUNTS_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.REFUSED,
        summary="Issue a token",
        tag=_TAG,
        answer=IssuedToken,
        params=AccountParams,
        body=IssueTokenBody,
        success=(201,),
        errors=_REFUSALS,
    )
    async def issue_token(self, call: Call, params: AccountParams, body: IssueTokenBody) -> Reply[IssuedToken]:
        """The secret is in this answer only. Who issues a token can use it, so the account must lie within the
        caller's own rights."""
        issued = await self._issuer.issue(
            call, params.account_id, description=body.description, expires_in=body.expires_in
        )
        return Reply(issued)

    @endpoint(
        "POST",
        _TOKEN + "/rotate",
        permission=Permission.ACCOUNTS_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.REFUSED,
        summary="Rotate a token",
        tag=_TAG,
        answer=IssuedToken,
        params=TokenParams,
        body=RotateTokenBody,
        success=(201,),
        errors=_REFUSALS,
    )
    async def rotate_token(self, call: Call, params: TokenParams, body: RotateTokenBody) -> Reply[IssuedToken]:
        """A new token, whose secret is in this answer only; the old one works on until the overlap has passed."""
        issued = await self._issuer.rotate(
            call, params.account_id, params.token_id, expires_in=body.expires_in, overlap=body.overlap
        )
        return Reply(issued)

    @endpoint(
        "DELETE",
        _TOKEN,
        permission=Permission.ACCOUNTS_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.NATURAL,
        summary="Revoke a token",
        tag=_TAG,
        answer=Token,
        params=TokenParams,
        errors=_REFUSALS,
    )
    async def revoke_token(self, call: Call, params: TokenParams, _body: NoBody) -> Reply[Token]:
        """At once."""
        return Reply(await self._issuer.revoke(call, params.account_id, params.token_id))
