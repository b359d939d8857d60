"""Several clusters behind one Objects: each workspace's own objects."""

from collections.abc import Mapping

from opsapi.workspaces.writing import JsonObject, ObjectKey, Resource
from support.api_objects import FakeObjects


class SeveralClusters:
    """Implements Objects."""

    def __init__(self, held: Mapping[str, FakeObjects]) -> None:
        self._held = held

    async def served(self, workspace_id: str, resource: Resource) -> bool:
        return await self._held[workspace_id].served(workspace_id, resource)

    async def get(self, key: ObjectKey, subresource: str = "") -> JsonObject:
        return await self._held[key.workspace_id].get(key, subresource)

    async def list(
        self, workspace_id: str, resource: Resource, namespace: str = "", *, selector: str = ""
    ) -> list[JsonObject]:
        return await self._held[workspace_id].list(workspace_id, resource, namespace, selector=selector)

    async def create(
        self, workspace_id: str, resource: Resource, body: JsonObject, *, dry_run: bool = False
    ) -> JsonObject:
        return await self._held[workspace_id].create(workspace_id, resource, body, dry_run=dry_run)

    async def patch(
        self,
        key: ObjectKey,
        changes: JsonObject,
        *,
        resource_version: str,
        subresource: str = "",
        strategic: bool = False,
        dry_run: bool = False,
    ) -> JsonObject:
        return await self._held[key.workspace_id].patch(
            key,
            changes,
            resource_version=resource_version,
            subresource=subresource,
            strategic=strategic,
            dry_run=dry_run,
        )

    async def delete(
        self,
        key: ObjectKey,
        *,
        resource_version: str = "",
        propagation: str = "Background",
        dry_run: bool = False,
    ) -> None:
        held = self._held[key.workspace_id]
        await held.delete(key, resource_version=resource_version, propagation=propagation, dry_run=dry_run)

    async def evict(self, key: ObjectKey, *, dry_run: bool = False) -> None:
        await self._held[key.workspace_id].evict(key, dry_run=dry_run)
