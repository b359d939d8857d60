"""`opsapi accounts`: the first admin comes from here, on the machine, never from an open endpoint."""

from typing import Annotated

import typer

from opsapi.accounts.administration import NewAccount
from opsapi.accounts.model import Account, IssuedToken
from opsapi.cli.context import ConfigOption, JsonOption, operator, with_state
from opsapi.cli.output import err, fail, out, show_json, show_table
from opsapi.kit.caller import AccountKind
from opsapi.wiring import State

app = typer.Typer(no_args_is_help=True, help="Create, list, rotate, revoke and grant service accounts.")

AccountArgument = Annotated[str, typer.Argument(help="The account's id, `sa-…`.", show_default=False)]
ExpiresOption = Annotated[
    str | None, typer.Option("--expires-in", help="How long the token lives, like 12h or 90d (the default).")
]


def _show_secret(account: Account, issued: IssuedToken, as_json: bool) -> None:
    if as_json:
        show_json({"account": account, "token": issued.token, "secret": issued.secret})
        return
    out.print(f"account  {account.id}  ({account.kind}, {account.name})", markup=False)
    out.print(f"token    {issued.secret}", markup=False)
    out.print(f"expires  {issued.token.expires_at:%Y-%m-%d %H:%M} UTC", markup=False)
    err.print("The token is shown here once and stored nowhere; keep it now.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What people call it.", show_default=False)],
    kind: Annotated[AccountKind, typer.Option(help="Only persons approve and resume.")] = AccountKind.AGENT,
    grant: Annotated[
        list[str] | None,
        typer.Option("--grant", "-g", help="A permission, like workspace:read or workspace:write@ws-123; repeatable."),
    ] = None,
    address: Annotated[
        list[str] | None, typer.Option(help="CIDR it may call from; repeatable; none: anywhere.")
    ] = None,
    may_act_for: Annotated[
        list[str] | None, typer.Option(help="Whom X-On-Behalf-Of may name: a name, *@example.com or *; repeatable.")
    ] = None,
    expires_in: ExpiresOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create an account and its first token.

    Example: opsapi accounts create "release agent" --grant workspace:write@ws-123 --grant application:read@ws-123
    """

    async def work(state: State) -> tuple[Account, IssuedToken]:
        by = operator("accounts create")
        state.issuer.life(expires_in)  # refused before the account is made, so that none is left without a token
        new = NewAccount(
            name=name,
            kind=kind,
            permissions=grant or [],
            allowed_addresses=address or [],
            may_act_for=may_act_for or [],
        )
        account = await state.administration.create(by, new)
        return account, await state.issuer.issue(by, account.id, expires_in=expires_in)

    account, issued = with_state(config, work)
    _show_secret(account, issued, as_json)
    if not grant and not as_json:
        err.print(f"It may do nothing yet: opsapi accounts grant {account.id} workspace:read")


@app.command("list")
def list_accounts(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the accounts with their permissions and last use."""

    async def work(state: State) -> list[tuple[Account, str]]:
        found = []
        after = ""
        while page := await state.accounts.accounts(after=after, limit=200, kind=None):
            for account in page:
                used = [t.last_used_at for t in await state.accounts.tokens(account.id) if t.last_used_at]
                found.append((account, f"{max(used):%Y-%m-%d %H:%M}" if used else "never"))
            after = page[-1].id
        return found

    rows = with_state(config, work)
    if as_json:
        show_json([account for account, _ in rows])
        return
    show_table(
        ("id", "name", "kind", "state", "permissions", "last used"),
        [
            (a.id, a.name, a.kind, "disabled" if a.disabled_at else "enabled", " ".join(a.permissions), used)
            for a, used in rows
        ],
        empty="No accounts yet. Create the first: opsapi accounts create admin --kind person --grant accounts:admin",
    )


@app.command()
def rotate(
    account: AccountArgument,
    token: Annotated[str | None, typer.Option(help="Which token, where the account has several; `tok-…`.")] = None,
    overlap: Annotated[str | None, typer.Option(help="How long the old one still works, like 1h; 24h.")] = None,
    expires_in: ExpiresOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replace a token; the old one works until the overlap has passed."""

    async def work(state: State) -> tuple[Account, IssuedToken]:
        found = await state.administration.get(account)
        token_id = token or await _only_token(state, account)
        by = operator("accounts rotate")
        return found, await state.issuer.rotate(by, account, token_id, expires_in=expires_in, overlap=overlap)

    found, issued = with_state(config, work)
    _show_secret(found, issued, as_json)


async def _only_token(state: State, account_id: str) -> str:
    now = state.clock.now()
    live = [token for token in await state.accounts.tokens(account_id) if token.is_live(now)]
    if not live:
        fail(f"{account_id} has no live token to rotate", then=f"make a new one: opsapi accounts token {account_id}")
    if len(live) > 1:
        fail(f"{account_id} has several live tokens: {', '.join(t.id for t in live)}", then="name one with --token")
    return live[0].id


@app.command("token")
def new_token(
    account: AccountArgument, expires_in: ExpiresOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Issue a further token."""

    async def work(state: State) -> tuple[Account, IssuedToken]:
        found = await state.administration.get(account)
        return found, await state.issuer.issue(operator("accounts token"), account, expires_in=expires_in)

    found, issued = with_state(config, work)
    _show_secret(found, issued, as_json)


@app.command()
def revoke(
    account: AccountArgument,
    token: Annotated[str | None, typer.Option(help="Only this token; without it the account is disabled.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigOption = None,
) -> None:
    """Revoke one token, or disable the whole account for good. Takes effect at once."""
    if token is None and not yes:
        typer.confirm(
            f"Disable {account} for good? Its queued work is cancelled and every token stops working", abort=True
        )

    async def work(state: State) -> str:
        by = operator("accounts revoke")
        if token is not None:
            revoked = await state.issuer.revoke(by, account, token)
            return f"token {revoked.id} is revoked"
        disabled = await state.administration.disable(by, account)
        return f"account {disabled.id} ({disabled.name}) is disabled"

    out.print(with_state(config, work), markup=False)


@app.command()
def grant(
    account: AccountArgument,
    permissions: Annotated[list[str], typer.Argument(help="Permissions to add, like workspace:read@ws-123.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take the permissions away instead.")] = False,
    config: ConfigOption = None,
) -> None:
    """Add permissions to an account, or with --remove take them away."""

    async def work(state: State) -> Account:
        added, taken = ([], permissions) if remove else (permissions, [])
        return await state.administration.regrant(operator("accounts grant"), account, grant=added, revoke=taken)

    after = with_state(config, work)
    out.print(f"{after.id} now has: {' '.join(after.permissions) or 'nothing'}", markup=False)
