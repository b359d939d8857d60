"""Makes and changes accounts."""

from collections.abc import Callable, Collection

import msgspec

from opsapi.accounts import checking, rules
from opsapi.accounts.acting import Actor, Work, acting, check_enabled
from opsapi.accounts.model import Account
from opsapi.accounts.ports import AccountStore
from opsapi.kit.caller import AccountKind
from opsapi.kit.clock import Clock
from opsapi.kit.errors import ResourceNotFound
from opsapi.kit.ids import new_id


class NewAccount(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    kind: AccountKind
    description: str = ""
    permissions: Collection[str] = ()
    allowed_addresses: Collection[str] = ()
    may_act_for: Collection[str] = ()


class AccountPatch(msgspec.Struct, frozen=True, kw_only=True):
    """None leaves a field as it is."""

    name: str | None = None
    description: str | None = None
    allowed_addresses: Collection[str] | None = None
    may_act_for: Collection[str] | None = None


class Administration:
    """`changed` is told of every account that was changed, after the commit: the authenticator forgets it.

    Every method may raise GrantNotAllowed, InsufficientInternalPermissions, InvalidServiceAccount (who asks was
    revoked meanwhile), ValidationFailed, ResourceNotFound and DependencyUnavailable, besides what it says.
    """

    def __init__(self, store: AccountStore, clock: Clock, changed: Callable[[str], None]) -> None:
        self._store = store
        self._clock = clock
        self._changed = changed

    async def get(self, account_id: str) -> Account:
        account = await self._store.account(account_id)
        if account is None:
            raise ResourceNotFound("service account", account_id)
        return account

    async def create(self, by: Actor, new: NewAccount) -> Account:
        name = checking.label("name", new.name, longest=100)
        description = checking.label("description", new.description, longest=1000, empty=True)
        granted = checking.permissions("permissions", new.permissions)
        addresses = checking.address_ranges("allowed_addresses", new.allowed_addresses)
        delegates = checking.delegates("may_act_for", new.may_act_for)
        async with acting(self._store, self._clock, by) as work:
            account = Account(
                id=new_id("sa"),
                name=name,
                kind=new.kind,
                description=description,
                permissions=checking.permission_names(granted),
                allowed_addresses=addresses,
                may_act_for=delegates,
                created_at=work.now,
                created_by=work.actor_id,
                updated_at=work.now,
            )
            rules.check_kind(account)
            rules.check_touch(work.authority, account)
            rules.check_within(work.authority, account)
            await work.change.insert_account(account)
            told = _told(permissions=account.permissions, allowed_addresses=addresses, may_act_for=delegates)
            await work.audit(201, resource(account.id), f"new {account.kind}; {told}")
        return account

    async def update(self, by: Actor, account_id: str, patch: AccountPatch) -> Account:
        """Raises InvalidState for a disabled account."""
        fields: dict[str, object] = {}
        if patch.name is not None:
            fields["name"] = checking.label("name", patch.name, longest=100)
        if patch.description is not None:
            fields["description"] = checking.label("description", patch.description, longest=1000, empty=True)
        if patch.allowed_addresses is not None:
            fields["allowed_addresses"] = checking.address_ranges("allowed_addresses", patch.allowed_addresses)
        if patch.may_act_for is not None:
            fields["may_act_for"] = checking.delegates("may_act_for", patch.may_act_for)
        async with acting(self._store, self._clock, by, account_id) as work:
            rules.check_not_self(work.authority, work.account)
            check_enabled(work.account)
            after = msgspec.structs.replace(work.account, updated_at=work.now, **fields)
            rules.check_within(work.authority, after)
            await self._save(work, after, f"set {_told(**{name: getattr(after, name) for name in fields})}")
        self._changed(account_id)
        return after

    async def regrant(self, by: Actor, account_id: str, *, grant: Collection[str], revoke: Collection[str]) -> Account:
        """Takes `revoke`, then adds `grant`. Taking asks for no right to give: it only narrows. Raises InvalidState."""
        added = checking.permissions("grant", grant)
        taken = checking.permissions("revoke", revoke)
        async with acting(self._store, self._clock, by, account_id) as work:
            rules.check_not_self(work.authority, work.account)
            check_enabled(work.account)
            permissions = checking.permission_names((work.account.granted() - taken) | added)
            after = msgspec.structs.replace(work.account, permissions=permissions, updated_at=work.now)
            rules.check_kind(after)
            if added:
                handed_on = msgspec.structs.replace(after, permissions=checking.permission_names(added))
                rules.check_within(work.authority, handed_on)
            names = {"grant": checking.permission_names(added), "revoke": checking.permission_names(taken)}
            await self._save(work, after, _told(**names))
        self._changed(account_id)
        return after

    async def disable(self, by: Actor, account_id: str) -> Account:
        """For good; every token of it stops working at once. Doing it again changes nothing."""
        async with acting(self._store, self._clock, by, account_id) as work:
            rules.check_not_self(work.authority, work.account)
            after = work.account
            if after.disabled_at is None:
                after = msgspec.structs.replace(
                    after, disabled_at=work.now, disabled_by=work.actor_id, updated_at=work.now
                )
            await self._save(work, after, "disable")
        self._changed(account_id)
        return after

    async def _save(self, work: Work, after: Account, change: str) -> None:
        await work.change.update_account(after)
        await work.audit(200, resource(after.id), change)


def resource(account_id: str) -> str:
    return f"service-account/{account_id}"


def _told(**lists: object) -> str:
    """`grant a, b; revoke (none)`."""
    parts = []
    for name, value in lists.items():
        text = ", ".join(value) if isinstance(value, list) else str(value)
        parts.append(f"{name} {text or '(none)'}")
    return "; ".join(parts)
