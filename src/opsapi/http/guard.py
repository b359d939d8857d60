"""Who may pass: credentials, address, permission in scope and rate limit, in that order, before any body is read.

Every refusal has counted the request somewhere, so that every answer can say where its caller stands:
failed logins by client address, unknown or invisible ids by account, all else by the endpoint's limit class.
"""

import base64
import binascii
import ipaddress
import re
from dataclasses import dataclass
from typing import NoReturn

from opsapi.accounts.errors import (
    DelegationNotAllowed,
    InsufficientInternalPermissions,
    InvalidServiceAccount,
    IpNotAllowed,
)
from opsapi.http.errors import HeadersTooLarge, MethodNotAllowed, RateLimitExceeded
from opsapi.http.exchange import Exchange, Header, check_head
from opsapi.http.limits import limit_key
from opsapi.http.params import segment
from opsapi.http.ports import Authenticator, ScopeResolver
from opsapi.http.routing import Match, Route, path_names
from opsapi.http.settings import HttpSettings
from opsapi.kit.caller import Caller
from opsapi.kit.endpoint import LimitClass, Scope
from opsapi.kit.errors import DependencyUnavailable, OpsError, ResourceNotFound, ValidationFailed
from opsapi.kit.limits import RateLimiter, Window
from opsapi.kit.permissions import UNBOUND_ONLY

_PRINTABLE = re.compile(rb"[\x21-\x7e]{1,128}")
_ACCOUNT_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TOKEN = re.compile(rb"[\x21-\x7e]{1,512}")
_BASIC = re.compile(rb"[Bb][Aa][Ss][Ii][Cc] +([A-Za-z0-9+/=]{4,1024})")
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([\x21-\x7e]{1,512})")
_INVISIBLE = "unknown or invisible ids"


@dataclass(frozen=True, slots=True)
class Credentials:
    account_id: str
    token: str


def credentials(headers: dict[bytes, bytes], *, basic: bool = False) -> Credentials:
    """`Authorization: Bearer` and `X-Service-Account`, both; with `basic`, `Authorization: Basic` alone as well.

    Raises InvalidServiceAccount.
    """
    authorization = headers.get(b"authorization", b"")
    account = headers.get(b"x-service-account", b"")
    known = _ACCOUNT_ID.fullmatch(account) is not None
    if basic and (encoded := _BASIC.fullmatch(authorization)) is not None:
        return _basic(encoded[1], account)
    bearer = _BEARER.fullmatch(authorization)
    if bearer is not None and known:
        return Credentials(account.decode(), bearer[1].decode())
    given = authorization.strip().lower() not in (b"", b"bearer") and account
    raise InvalidServiceAccount(account.decode() if known else "", "malformed" if given else "missing")


def _basic(encoded: bytes, header: bytes) -> Credentials:
    """RFC 7617, with the account's id as the user and its token as the password."""
    try:
        account, colon, token = base64.b64decode(encoded, validate=True).partition(b":")
    except binascii.Error:
        raise InvalidServiceAccount("", "malformed") from None
    known = _ACCOUNT_ID.fullmatch(account) is not None
    if not (known and colon and _TOKEN.fullmatch(token) and header in (b"", account)):
        raise InvalidServiceAccount(account.decode() if known else "", "malformed")
    return Credentials(account.decode(), token.decode())


def _network(address: str) -> str:
    """What failed logins are counted by: an IPv4 address, or the /64 that one IPv6 customer holds."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))
    except ValueError:
        return address


class Guard:
    def __init__(
        self, authenticator: Authenticator, limiter: RateLimiter, scopes: ScopeResolver, settings: HttpSettings
    ) -> None:
        self._authenticator = authenticator
        self._limiter = limiter
        self._scopes = scopes
        self._failed_logins = settings.failed_logins_per_minute
        self._unknown = settings.unknown_per_minute
        self._max_headers = settings.header_max_count
        self._max_header_bytes = settings.header_max_bytes

    async def authenticate(self, exchange: Exchange, headers: list[Header], *, basic: bool = False) -> Caller:
        """Valid credentials always pass, however many failed before from the same address.

        Raises InvalidServiceAccount, IpNotAllowed, HeadersTooLarge, ValidationFailed, RateLimitExceeded.
        """
        try:
            check_head(headers, exchange, max_count=self._max_headers, max_bytes=self._max_header_bytes)
            given = credentials(exchange.headers, basic=basic)
            exchange.claimed_account = given.account_id
            caller = await self._authenticator.authenticate(
                given.account_id,
                given.token,
                exchange.address,
                _label(exchange.headers, b"x-on-behalf-of"),
                _label(exchange.headers, b"x-agent-run"),
            )
        except (InvalidServiceAccount, IpNotAllowed, ValidationFailed, HeadersTooLarge):
            window = await self._limiter.hit(_login_key(exchange), self._failed_logins)
            self._enforce(exchange, window, "failed logins from this address")
            raise
        except DependencyUnavailable:
            await self.stand(exchange)
            raise
        except DelegationNotAllowed:
            window = await self._limiter.hit(f"unknown:{exchange.claimed_account}", self._unknown)
            self._enforce(exchange, window, _INVISIBLE)
            raise
        exchange.caller = caller
        return caller

    async def stand(self, exchange: Exchange) -> None:
        """For an answer before anybody is known: where the address stands, counting nothing."""
        exchange.window = await self._limiter.peek(_login_key(exchange), self._failed_logins)

    async def refuse(self, exchange: Exchange, match: Match | None) -> NoReturn:
        """What no declaration serves. Raises ResourceNotFound, MethodNotAllowed, RateLimitExceeded."""
        await self._count_unknown(exchange, self._account(exchange))
        if match is None:
            raise ResourceNotFound("path", exchange.path)
        raise MethodNotAllowed(exchange.method, allowed_methods(match))

    async def admit(self, exchange: Exchange, route: Route, match: Match) -> None:
        """Permission in scope, then the rate limit.

        Raises ResourceNotFound, AmbiguousResource, DependencyUnavailable, InsufficientInternalPermissions,
        RateLimitExceeded, ValidationFailed.
        """
        account = self._account(exchange)
        scope_id = ""
        if match.values:
            exchange.values = await self._path_values(exchange, route, match, account)
        if route.scope_name is not None:
            scope_id = exchange.values[route.scope_name]
            exchange.workspace_id = await self._workspace(exchange, route, scope_id, account)
            exchange.audit.workspace_id = exchange.workspace_id
        limit = route.declaration.limit
        key = limit_key(limit, account, scope_id)
        exchange.window = window = await self._limiter.hit(key, route.per_minute)
        self._permit(exchange, route)
        if not window.allowed:
            self._enforce(exchange, window, limit.name)

    async def _path_values(self, exchange: Exchange, route: Route, match: Match, account: str) -> dict[str, str]:
        values: dict[str, str] = {}
        for name, raw in zip(path_names(route.declaration.path), match.values, strict=True):
            try:
                values[name] = segment(raw)
            except ValueError as error:
                await self._count_unknown(exchange, account)
                raise ValidationFailed({name: str(error)}) from None
        return values

    async def _workspace(self, exchange: Exchange, route: Route, scope_id: str, account: str) -> str:
        """The workspace in whose bounds the call runs; what is invisible is answered like what does not exist."""
        assert exchange.caller is not None
        grants = exchange.caller.grants
        kind = "workspace" if route.declaration.scope is Scope.WORKSPACE else "application"
        try:
            if route.declaration.scope is Scope.APPLICATION:
                workspace = await self._scopes.workspace_of(scope_id, grants)
            else:
                workspace = scope_id
            if grants.sees(workspace) and await self._scopes.workspace_exists(workspace):
                return workspace
        except ResourceNotFound:
            pass
        except OpsError:
            limit = route.declaration.limit
            window = await self._limiter.hit(limit_key(limit, account, scope_id), route.per_minute)
            self._enforce(exchange, window, limit.name)
            raise
        await self._count_unknown(exchange, account)
        raise ResourceNotFound(kind, scope_id)

    def _permit(self, exchange: Exchange, route: Route) -> None:
        permission = route.declaration.permission
        if permission is None:
            return
        assert exchange.caller is not None
        grants = exchange.caller.grants
        if exchange.workspace_id is not None:
            allowed = grants.allows(permission, exchange.workspace_id)
        elif permission in UNBOUND_ONLY:
            allowed = grants.allows(permission)
        else:
            allowed = grants.allows_somewhere(permission)
        if not allowed:
            raise InsufficientInternalPermissions(permission, grants)

    async def count(self, exchange: Exchange, limit: LimitClass, per_minute: int) -> None:
        """Raises RateLimitExceeded."""
        window = await self._limiter.hit(limit_key(limit, self._account(exchange)), per_minute)
        self._enforce(exchange, window, limit.name)

    async def _count_unknown(self, exchange: Exchange, account: str) -> None:
        window = await self._limiter.hit(f"unknown:{account}", self._unknown)
        self._enforce(exchange, window, _INVISIBLE)

    def _enforce(self, exchange: Exchange, window: Window, counted: str) -> None:
        exchange.window = window
        if not window.allowed:
            wait = max(1, window.reset - int(exchange.received_at.timestamp()))
            raise RateLimitExceeded(counted, window.limit, wait)

    @staticmethod
    def _account(exchange: Exchange) -> str:
        assert exchange.caller is not None
        return exchange.caller.account_id


def _login_key(exchange: Exchange) -> str:
    return f"login:{_network(exchange.address)}"


def allowed_methods(match: Match) -> list[str]:
    methods = set(match.methods) | {"OPTIONS"}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


def _label(headers: dict[bytes, bytes], name: bytes) -> str | None:
    raw = headers.get(name)
    if raw is None:
        return None
    if not _PRINTABLE.fullmatch(raw):
        raise ValidationFailed({name.decode(): "must be 1 to 128 printable ASCII characters without spaces"})
    return raw.decode()
