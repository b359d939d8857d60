"""From credentials to a Caller. The hot path looks into memory only."""

import asyncio
import hmac
import logging
from datetime import datetime

from opsapi.accounts.addresses import AddressSet
from opsapi.accounts.delegation import may_act_for
from opsapi.accounts.errors import DelegationNotAllowed, InvalidServiceAccount, IpNotAllowed, TokenStatus
from opsapi.accounts.model import Account, Credential, TokenUse
from opsapi.accounts.ports import AccountStore
from opsapi.accounts.tokens import sha256, well_formed
from opsapi.kit.caller import Caller
from opsapi.kit.clock import Clock
from opsapi.kit.errors import DependencyUnavailable

CACHE_SECONDS = 2.0
"""How long another replica's revocation may take to be felt here; our own are felt at once."""
CACHE_ENTRIES = 10_000
USES_EVERY_SECONDS = 60.0

_log = logging.getLogger(__name__)


class _Known:
    """A credential made ready for use."""

    __slots__ = ("account", "addresses", "credential", "expires_at", "grants", "loaded", "token_id")

    def __init__(self, credential: Credential, loaded: float) -> None:
        self.credential = credential
        self.account: Account = credential.account
        self.token_id = credential.token.id
        self.expires_at: datetime = credential.token.expires_at
        self.grants = credential.account.grants()
        self.addresses = AddressSet(credential.account.allowed_addresses)
        self.loaded = loaded


class Authenticator:
    """Checks both credentials, the token's state, the address and the delegation, in this order.

    Tokens are looked up by their hash alone, so an unknown account, a wrong token and a token of another account cost
    the same single look-up, and only who holds a token's text learns anything about its account.
    """

    def __init__(self, store: AccountStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[bytes, _Known] = {}
        self._loading: dict[bytes, asyncio.Task[_Known | None]] = {}
        self._generation = 0
        self._uses: dict[str, TokenUse] = {}

    async def authenticate(
        self,
        account_id: str | None,
        token: str | None,
        address: str,
        on_behalf_of: str | None = None,
        agent_run: str | None = None,
    ) -> Caller:
        """Raises InvalidServiceAccount, IpNotAllowed, DelegationNotAllowed, DependencyUnavailable."""
        if not account_id or not token:
            raise InvalidServiceAccount(account_id or "", "missing")
        digest = sha256(token)
        known = self._known.get(digest)
        if known is None or self._clock.monotonic() - known.loaded >= CACHE_SECONDS:
            if not well_formed(token):
                raise InvalidServiceAccount(account_id, "malformed")
            known = await self._load(digest)
        now = self._clock.now()
        refused = _refusal(known, digest, account_id, now)
        if refused is not None or known is None:
            raise InvalidServiceAccount(account_id, refused or "unknown")
        if not known.addresses.allows(address):
            raise IpNotAllowed(account_id, address)
        if on_behalf_of is not None and not may_act_for(known.account.may_act_for, on_behalf_of):
            raise DelegationNotAllowed(account_id, on_behalf_of)
        self._uses[known.token_id] = TokenUse(token_id=known.token_id, at=now, address=address)
        return Caller(
            account_id=account_id,
            kind=known.account.kind,
            grants=known.grants,
            token_id=known.token_id,
            address=address,
            on_behalf_of=on_behalf_of,
            agent_run=agent_run,
        )

    async def _load(self, digest: bytes) -> _Known | None:
        """One look-up however many requests wait for it, and none of them can cancel it for the others."""
        task = self._loading.get(digest)
        if task is None:
            task = asyncio.create_task(self._read(digest))
            self._loading[digest] = task
            task.add_done_callback(lambda done: self._loaded(digest, done))
        return await asyncio.shield(task)

    def _loaded(self, digest: bytes, task: "asyncio.Task[_Known | None]") -> None:
        if self._loading.get(digest) is task:
            del self._loading[digest]
        if not task.cancelled():
            # Looked at here, since everybody who waited for it may have been cancelled.
            task.exception()

    async def _read(self, digest: bytes) -> _Known | None:
        generation, started = self._generation, self._clock.monotonic()
        credential = await self._store.credential(digest)
        if credential is None:
            self._known.pop(digest, None)
            return None
        known = _Known(credential, started)
        # Who forgot an account while we read may have known better than what we read.
        if generation == self._generation:
            self._make_room(started)
            self._known[digest] = known
        return known

    def _make_room(self, now: float) -> None:
        if len(self._known) < CACHE_ENTRIES:
            return
        self._known = {key: known for key, known in self._known.items() if now - known.loaded < CACHE_SECONDS}
        while len(self._known) >= CACHE_ENTRIES:
            self._known.pop(next(iter(self._known)))

    def forget(self, account_id: str) -> None:
        """Drops what is known of an account: called after every change to it, so that it counts at once."""
        self._generation += 1
        self._loading.clear()
        self._known = {key: known for key, known in self._known.items() if known.account.id != account_id}

    async def flush_uses(self) -> None:
        """Writes the last uses; what cannot be written now is kept for the next time."""
        uses, self._uses = self._uses, {}
        if not uses:
            return
        try:
            await self._store.record_uses(list(uses.values()))
        except BaseException:
            self._uses = uses | self._uses
            raise

    async def run(self) -> None:
        """Writes the last uses once a minute, until cancelled; the end of the service calls `flush_uses` once more."""
        while True:
            await asyncio.sleep(USES_EVERY_SECONDS)
            try:
                await self.flush_uses()
            except DependencyUnavailable as error:
                _log.warning("last uses of tokens wait for the database: %s", error.message)
            except Exception:
                _log.exception("last uses of tokens wait")


def _refusal(known: _Known | None, digest: bytes, account_id: str, now: datetime) -> TokenStatus | None:
    if known is None or not hmac.compare_digest(known.credential.sha256, digest):
        return "unknown"
    if not hmac.compare_digest(known.account.id.encode(), account_id.encode(errors="replace")):
        return "mismatched"
    if known.account.disabled_at is not None:
        return "disabled"
    if known.credential.token.revoked_at is not None:
        return "revoked"
    return "expired" if now >= known.expires_at else None
