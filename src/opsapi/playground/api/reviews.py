"""The kinds that nothing stores: access reviews, token reviews, who am I."""

from typing import Any

from opsapi.playground.api.authentication import Authenticator
from opsapi.playground.api.authorization import Attributes, Authorizer
from opsapi.playground.kinds import Kind
from opsapi.playground.machinery import managed
from opsapi.playground.machinery.schema import built_in
from opsapi.playground.machinery.status import bad_request, invalid, required
from opsapi.playground.registry import Obj, User

_READ_ONLY_URLS = ("/healthz", "/livez", "/readyz", "/version", "/version/")


class Reviews:
    def __init__(self, authenticator: Authenticator, authorizer: Authorizer) -> None:
        self._authenticator = authenticator
        self._authorizer = authorizer

    def answer(self, kind: Kind, obj: Obj, user: User, namespace: str, writer: managed.Writer) -> Obj:
        """`obj` with its status. Raises ApiError."""
        spec = obj.get("spec") or {}
        answers: dict[str, Any] = {
            "SelfSubjectAccessReview": lambda: self._access(kind, spec, user),
            "SubjectAccessReview": lambda: self._access(kind, spec, _subject(spec)),
            "LocalSubjectAccessReview": lambda: self._local(kind, spec, namespace),
            "SelfSubjectRulesReview": lambda: self._rules(spec, user),
            "SelfSubjectReview": lambda: {"userInfo": _user_info(user)},
            "TokenReview": lambda: self._token(spec),
        }
        status = answers[kind.kind]()
        made: Obj = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": obj.get("metadata") or {}}
        if kind.kind == "SelfSubjectReview":
            made["metadata"] = {**made["metadata"], "creationTimestamp": writer.time}
        elif kind.kind != "SelfSubjectRulesReview":
            sent = {**made, "spec": spec}
            made["metadata"] = managed.record_update(built_in(kind), None, sent, writer)["metadata"]
        if kind.kind != "SelfSubjectReview":
            made["spec"] = {} if kind.kind == "SelfSubjectRulesReview" else spec
        return {**made, "status": status}

    def _access(self, kind: Kind, spec: Obj, user: User) -> Obj:
        wanted, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
        if bool(wanted) == bool(path):
            cause = required(
                "spec.resourceAttributes",
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            )
            raise invalid(kind.group, kind.kind, "", [cause])
        if wanted:
            asked = Attributes(
                wanted.get("verb", ""),
                wanted.get("group", ""),
                wanted.get("resource", ""),
                wanted.get("subresource", ""),
                wanted.get("namespace", ""),
                wanted.get("name", ""),
            )
        else:
            assert path is not None
            asked = Attributes(path.get("verb", ""), path=path.get("path") or "/")
        return {"allowed": self._authorizer.allows(user, asked)}

    def _local(self, kind: Kind, spec: Obj, namespace: str) -> Obj:
        if (spec.get("resourceAttributes") or {}).get("namespace") != namespace:
            raise bad_request("spec.resourceAttributes.namespace must match namespace")
        return self._access(kind, spec, _subject(spec))

    def _rules(self, spec: Obj, user: User) -> Obj:
        rules = self._authorizer.rules(user, spec.get("namespace", ""))
        resource = [
            {name: rule[name] for name in ("verbs", "apiGroups", "resources", "resourceNames") if rule.get(name)}
            for rule in rules
            if rule.get("resources")
        ]
        other = [
            {"verbs": rule["verbs"], "nonResourceURLs": rule["nonResourceURLs"]}
            for rule in rules
            if rule.get("nonResourceURLs")
        ]
        return {"resourceRules": _once(resource), "nonResourceRules": _once(other), "incomplete": False}

    def _token(self, spec: Obj) -> Obj:
        user = self._authenticator.lookup(spec.get("token", ""))
        if user is None:
            return {"user": {}, "error": "[invalid bearer token]"}
        return {"authenticated": True, "user": _user_info(user)}


def _once(rules: list[Obj]) -> list[Obj]:
    made: list[Obj] = []
    for rule in rules:
        if rule not in made:
            made.append(rule)
    return made


def _subject(spec: Obj) -> User:
    return User(spec.get("user", ""), tuple(spec.get("groups") or ()))


def _user_info(user: User) -> Obj:
    return {"username": user.name, "groups": list(user.groups)}
