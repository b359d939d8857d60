"""What accounts need: one store. Every method may raise DependencyUnavailable."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from opsapi.accounts.model import Account, Credential, Token, TokenUse
from opsapi.kit.caller import AccountKind, Call, System


class AccountChange(Protocol):
    """One transaction. Accounts read through `lock` stay as they are until it ends."""

    async def lock(self, *account_ids: str) -> dict[str, Account]:
        """Those that exist, locked in an order that cannot deadlock. Called once, before anything else."""
        ...

    async def tokens(self, account_id: str) -> list[Token]: ...

    async def insert_account(self, account: Account) -> None: ...

    async def update_account(self, account: Account) -> None: ...

    async def insert_token(self, token: Token, sha256: bytes) -> None: ...

    async def update_token(self, token: Token) -> None:
        """Expiry and revocation."""
        ...

    async def audit(self, by: Call | System, status: int, resource: str, *, at: datetime, reason: str) -> None:
        """Adds the audit entry; `reason` says what changed. Once the transaction has committed, `by.audit.committed`
        is set on a call."""
        ...


class AccountStore(Protocol):
    async def credential(self, sha256: bytes) -> Credential | None:
        """By the hash of a token's text: one indexed look-up, the same for every outcome."""
        ...

    async def account(self, account_id: str) -> Account | None: ...

    async def token(self, token_id: str) -> Token | None: ...

    async def accounts(self, *, after: str, limit: int, kind: AccountKind | None) -> list[Account]:
        """By id, from the first one behind `after`."""
        ...

    async def tokens(self, account_id: str) -> list[Token]:
        """The newest first."""
        ...

    async def record_uses(self, uses: Sequence[TokenUse]) -> None:
        """Notes last uses; an older one never overwrites a newer one."""
        ...

    def change(self) -> AbstractAsyncContextManager[AccountChange]:
        """Commits when the block ends, rolls back when it raises."""
        ...
