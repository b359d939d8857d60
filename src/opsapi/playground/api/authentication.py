"""Bearer tokens: given ones, and those that TokenRequest issues for ServiceAccounts."""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from opsapi.playground.machinery.registry import ObjectRegistry
from opsapi.playground.machinery.status import failure
from opsapi.playground.registry import ApiError, User

AUTHENTICATED = "system:authenticated"
ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


@dataclass(frozen=True, slots=True)
class _Issued:
    user: User
    namespace: str
    name: str
    uid: str
    expires: datetime


def unauthorized() -> ApiError:
    return failure(401, "Unauthorized", "Unauthorized")


def service_account(namespace: str, name: str) -> User:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
    return User(f"system:serviceaccount:{namespace}:{name}", groups)


def impersonated(name: str, groups: list[str]) -> User:
    if not groups and name.startswith("system:serviceaccount:"):
        _, _, namespace, account = name.split(":", 3)
        return service_account(namespace, account)
    return User(name, tuple(dict.fromkeys((*groups, AUTHENTICATED))))


class Authenticator:
    """`tokens` may be changed while the server runs."""

    def __init__(self, registry: ObjectRegistry, tokens: dict[str, User]) -> None:
        self._registry = registry
        self.tokens = tokens
        self._issued: dict[str, _Issued] = {}

    def authenticate(self, authorization: str) -> User:
        """The caller; anonymous without a header. Raises ApiError (401) on a token that nobody has."""
        if not authorization:
            return ANONYMOUS
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise unauthorized()
        found = self.lookup(token.strip())
        if found is None:
            raise unauthorized()
        return found

    def lookup(self, token: str) -> User | None:
        user = self.tokens.get(token)
        if user is not None:
            if AUTHENTICATED in user.groups:
                return user
            return User(user.name, (*user.groups, AUTHENTICATED))
        issued = self._issued.get(token)
        if issued is None or issued.expires <= self._registry.clock.now():
            return None
        account = self._registry.find("serviceaccounts", issued.namespace, issued.name)
        if account is None or account["metadata"]["uid"] != issued.uid:
            return None
        return issued.user

    def issue(self, namespace: str, name: str, seconds: int) -> tuple[str, datetime]:
        """A token for a ServiceAccount. Raises ApiError (404) where there is none."""
        account = self._registry.get("serviceaccounts", namespace, name)
        expires = self._registry.clock.now() + timedelta(seconds=seconds)
        token = secrets.token_urlsafe(32)
        user = service_account(namespace, name)
        self._issued[token] = _Issued(user, namespace, name, account["metadata"]["uid"], expires)
        return token, expires
