"""Reads everything that belongs to an application, fresh, and says what could not be had."""

from collections.abc import Iterable

import msgspec

from opsapi.backups import selection
from opsapi.backups.kinds import (
    AUTOSCALERS,
    BUDGETS,
    CLAIMS,
    CONFIG_MAPS,
    INGRESSES,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    WORKLOADS,
)
from opsapi.backups.manifests import cleaned
from opsapi.backups.model import Held, LeftOut, Target
from opsapi.workspaces.writing import JsonObject, ObjectKey, Objects, Resource, TargetGone, WriteConflict, WriteRefused

_NOT_FOUND = "it does not exist"
_SECRETS_OFF = "backups do not hold Secrets: backups.secrets is off"
_TOKEN = "kubernetes.io/service-account-token"  # noqa: S105  the type's name, no password


class Collected(msgspec.Struct, frozen=True):
    """`objects` as the API server holds them; `claims` are those of them that are PersistentVolumeClaims."""

    workload: JsonObject
    objects: list[tuple[Resource, JsonObject]]
    left_out: list[LeftOut]

    @property
    def claims(self) -> list[JsonObject]:
        return [body for resource, body in self.objects if resource == CLAIMS]

    @property
    def held(self) -> list[Held]:
        return sorted(Held(resource.kind, body["metadata"]["name"]) for resource, body in self.objects)

    def cleaned(self) -> list[tuple[Resource, JsonObject]]:
        return [(resource, cleaned(body)) for resource, body in self.objects]


class Collector:
    """`secrets`: whether Secrets are read at all."""

    def __init__(self, objects: Objects, *, secrets: bool) -> None:
        self._objects = objects
        self._secrets = secrets

    async def collect(self, target: Target) -> Collected:
        """Raises TargetGone and WriteConflict where the application was deleted or replaced, WriteRefused where the
        credentials may not read what every backup holds, DependencyUnavailable."""
        return await _Gathering(self._objects, target, self._secrets).run()


class _Gathering:
    def __init__(self, objects: Objects, target: Target, secrets: bool) -> None:
        self._objects = objects
        self._target = target
        self._secrets = secrets
        self._found: dict[tuple[Resource, str], JsonObject] = {}
        self._left_out: list[LeftOut] = []

    async def run(self) -> Collected:
        target = self._target
        resource = WORKLOADS[target.kind]
        key = ObjectKey(target.workspace_id, resource, target.namespace, target.name, target.uid)
        workload = {"apiVersion": resource.api_version, "kind": resource.kind} | await self._objects.get(key)
        self._add(resource, [workload])
        named = selection.references(workload)
        secrets = set(named.secrets)
        if named.service_account:
            await self._take(SERVICE_ACCOUNTS, [named.service_account])
            account = self._found.get((SERVICE_ACCOUNTS, named.service_account))
            secrets |= set(selection.pull_secrets_of(account)) if account is not None else set()
        await self._take(CONFIG_MAPS, named.config_maps)
        await self._claims(workload, named.claims)
        services = selection.services_of(workload, await self._all(SERVICES))
        self._add(SERVICES, services)
        names = [one["metadata"]["name"] for one in services]
        ingresses = selection.ingresses_of(names, await self._all(INGRESSES)) if names else []
        self._add(INGRESSES, ingresses)
        secrets |= set(selection.certificates_of(ingresses))
        self._add(AUTOSCALERS, selection.autoscalers_of(workload, await self._all(AUTOSCALERS)))
        self._add(BUDGETS, selection.budgets_of(workload, await self._all(BUDGETS)))
        await self._take_secrets(sorted(secrets))
        found = [(resource, body) for (resource, _), body in self._found.items()]
        return Collected(workload, found, self._left_out)

    def _add(self, resource: Resource, bodies: Iterable[JsonObject]) -> None:
        for body in bodies:
            if body["metadata"].get("deletionTimestamp"):
                self._left_out.append(LeftOut(resource.kind, body["metadata"]["name"], "it is being deleted"))
            else:
                self._found[resource, body["metadata"]["name"]] = body

    async def _take(self, resource: Resource, names: Iterable[str]) -> None:
        target = self._target
        for name in names:
            try:
                body = await self._objects.get(ObjectKey(target.workspace_id, resource, target.namespace, name))
            except TargetGone:
                self._left_out.append(LeftOut(resource.kind, name, _NOT_FOUND))
            except WriteRefused as error:
                self._left_out.append(LeftOut(resource.kind, name, f"it may not be read: {error.reason}", True))
            else:
                self._add(resource, [{"apiVersion": resource.api_version, "kind": resource.kind} | body])

    async def _claims(self, workload: JsonObject, named: Iterable[str]) -> None:
        names = list(named)
        if (workload.get("spec") or {}).get("volumeClaimTemplates"):
            names += selection.template_claims(workload, await self._all(CLAIMS))
        await self._take(CLAIMS, names)

    async def _take_secrets(self, names: list[str]) -> None:
        if not self._secrets:
            self._left_out += [LeftOut(SECRETS.kind, name, _SECRETS_OFF) for name in names]
            return
        await self._take(SECRETS, names)
        for name in names:
            body = self._found.get((SECRETS, name))
            if body is not None and body.get("type") == _TOKEN:
                del self._found[SECRETS, name]
                self._left_out.append(LeftOut(SECRETS.kind, name, "the token of an account is of no use elsewhere"))

    async def _all(self, resource: Resource) -> list[JsonObject]:
        target = self._target
        try:
            return await self._objects.list(target.workspace_id, resource, target.namespace)
        except (TargetGone, WriteConflict):
            return []
        except WriteRefused as error:
            reason = f"they may not be listed: {error.reason}"
            self._left_out.append(LeftOut(resource.kind, "*", reason, True))
            return []
