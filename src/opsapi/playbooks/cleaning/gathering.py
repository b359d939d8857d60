"""Reads all that a cleanup judges by, fresh from the API server."""

from collections.abc import Sequence

import msgspec

from opsapi.playbooks.cleaning.leftovers import World, leftovers
from opsapi.playbooks.cleaning.model import (
    CLAIMS,
    EXPIRING,
    OPTIONAL_REFERRERS,
    REFERRERS,
    SECRETS,
    VOLUMES,
    Leftover,
    Limits,
)
from opsapi.policy.model import PolicySettings
from opsapi.workspaces.objects import NAMESPACE, Namespace
from opsapi.workspaces.ports import Cluster
from opsapi.workspaces.writing import JsonObject, Objects, Resource, TargetGone, WriteRefused

_READ = tuple(dict.fromkeys((*EXPIRING, *REFERRERS, *OPTIONAL_REFERRERS, CLAIMS, VOLUMES)))


class Sighting(msgspec.Struct, frozen=True):
    """`unobserved` maps a kind that could not be read to the reason."""

    leftovers: list[Leftover]
    unobserved: dict[str, str]


class Gathering:
    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def look(self, cluster: Cluster, policy: PolicySettings, limits: Limits) -> Sighting:
        """References count wherever they stand; leftovers are of the namespaces asked for, of the workspace's scope,
        and neither protected nor labelled so. Raises DependencyUnavailable."""
        held: dict[Resource, Sequence[JsonObject]] = {}
        unobserved: dict[str, str] = {}
        for resource in _READ:
            optional = resource in OPTIONAL_REFERRERS
            if optional and not await self._objects.served(cluster.workspace.id, resource):
                continue
            if not resource.namespaced and cluster.workspace.namespaces:
                unobserved[resource.kind] = "the workspace is some namespaces alone"
                continue
            try:
                held[resource] = await self._list(cluster, resource)
            except (WriteRefused, TargetGone) as error:
                unobserved[resource.kind] = str(error)[:200]
        wanted = [*REFERRERS, *(one for one in OPTIONAL_REFERRERS if one in held)]
        referrers = all(one in held for one in wanted) and not any(one.kind in unobserved for one in OPTIONAL_REFERRERS)
        if not referrers:
            unobserved["references"] = "a kind that may refer to ConfigMaps and Secrets could not be read"
        world = World(held, cluster.inventory.now(), referrers)
        found = [one for one in leftovers(world, limits) if self._free(cluster, policy, limits, one)]
        protected = _labelled(held, policy.protected_label)
        return Sighting([one for one in found if one.uid not in protected], unobserved)

    async def _list(self, cluster: Cluster, resource: Resource) -> list[JsonObject]:
        found: list[JsonObject] = []
        for namespace in cluster.workspace.namespaces or ("",):
            found += await self._objects.list(cluster.workspace.id, resource, namespace)
        return [_without_contents(one) for one in found] if resource == SECRETS else found

    def _free(self, cluster: Cluster, policy: PolicySettings, limits: Limits, one: Leftover) -> bool:
        if not one.namespace:
            return not limits.namespaces
        if limits.namespaces and one.namespace not in limits.namespaces:
            return False
        namespace = cluster.inventory.get(NAMESPACE, Namespace, "", one.namespace)
        labels = namespace.metadata.labels if namespace is not None else {}
        if labels.get(policy.protected_label) == "true" or policy.protects(one.namespace):
            return False
        return cluster.workspace.in_scope(one.namespace)


def _without_contents(secret: JsonObject) -> JsonObject:
    """Nothing of what a Secret holds is kept, not even in memory."""
    return {key: value for key, value in secret.items() if key not in ("data", "stringData")}


def _labelled(held: dict[Resource, Sequence[JsonObject]], label: str) -> set[str]:
    return {
        one["metadata"]["uid"]
        for listed in held.values()
        for one in listed
        if (one["metadata"].get("labels") or {}).get(label) == "true"
    }
