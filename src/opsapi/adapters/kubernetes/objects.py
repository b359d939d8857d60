"""Acts on objects of any kind, as JSON, under uid and resourceVersion."""

from collections.abc import Mapping
from typing import Any

from opsapi.adapters.kubernetes.clusters import KubernetesClusters
from opsapi.adapters.kubernetes.failures import COMPONENT, reading, writing
from opsapi.adapters.kubernetes.transport import Refused, Transport
from opsapi.adapters.kubernetes.wire import decode_object
from opsapi.applications.ports import FIELD_MANAGER
from opsapi.kit.errors import DependencyUnavailable
from opsapi.workspaces.writing import EvictionBlocked, JsonObject, ObjectKey, Resource, WriteConflict

_JSON = "application/json"
_MERGE = "application/merge-patch+json"
_STRATEGIC = "application/strategic-merge-patch+json"
_PAGE = "500"
_BUDGET_CAUSE = "DisruptionBudget"


class KubernetesObjects:
    """Implements workspaces' Objects over the live clusters' acting credentials."""

    def __init__(self, clusters: KubernetesClusters) -> None:
        self._clusters = clusters

    async def served(self, workspace_id: str, resource: Resource) -> bool:
        path = _group(resource)
        try:
            with reading(workspace_id):
                body = await self._acting(workspace_id).get(path)
                listed = decode_object(dict[str, Any], body).get("resources") or []
        except Exception as error:
            if _is_absent(error):
                return False
            raise
        return any(one.get("name") == resource.plural for one in listed)

    async def get(self, key: ObjectKey, subresource: str = "") -> JsonObject:
        with reading(key.workspace_id):
            path = f"{_path(key)}/{subresource}" if subresource else _path(key)
            held: JsonObject = decode_object(dict[str, Any], await self._acting(key.workspace_id).get(path))
        _check_uid(key, held)
        return held

    async def list(
        self, workspace_id: str, resource: Resource, namespace: str = "", *, selector: str = ""
    ) -> list[JsonObject]:
        query = {"limit": _PAGE} | ({"labelSelector": selector} if selector else {})
        found: list[JsonObject] = []
        while True:
            with reading(workspace_id):
                body = await self._acting(workspace_id).get(_collection(resource, namespace), query, large=True)
                page = decode_object(dict[str, Any], body)
            for item in page.get("items") or ():
                found.append({"apiVersion": resource.api_version, "kind": resource.kind} | item)
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return found
            query["continue"] = token

    async def create(
        self, workspace_id: str, resource: Resource, body: JsonObject, *, dry_run: bool = False
    ) -> JsonObject:
        namespace = body["metadata"].get("namespace", "") if resource.namespaced else ""
        with writing(workspace_id, dry_run=dry_run):
            answer = await self._acting(workspace_id).send(
                "POST", _collection(resource, namespace), body, query=_query(dry_run), content_type=_JSON
            )
            return decode_object(dict[str, Any], answer)

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
        stated = {"uid": key.uid, "resourceVersion": resource_version}
        body = changes | {"metadata": changes.get("metadata", {}) | stated}
        path = f"{_path(key)}/{subresource}" if subresource else _path(key)
        with writing(key.workspace_id, dry_run=dry_run):
            answer = await self._acting(key.workspace_id).send(
                "PATCH", path, body, query=_query(dry_run), content_type=_STRATEGIC if strategic else _MERGE
            )
            return decode_object(dict[str, Any], answer)

    async def delete(
        self,
        key: ObjectKey,
        *,
        resource_version: str = "",
        propagation: str = "Background",
        dry_run: bool = False,
    ) -> None:
        body = _options(key, resource_version, dry_run) | {"propagationPolicy": propagation}
        with writing(key.workspace_id, dry_run=dry_run):
            await self._acting(key.workspace_id).send("DELETE", _path(key), body, content_type=_JSON)

    async def evict(self, key: ObjectKey, *, dry_run: bool = False) -> None:
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": key.name, "namespace": key.namespace},
            "deleteOptions": _options(key, "", dry_run),
        }
        with writing(key.workspace_id, dry_run=dry_run):
            try:
                await self._acting(key.workspace_id).send(
                    "POST", f"{_path(key)}/eviction", body, query=_query(dry_run), content_type=_JSON
                )
            except Refused as refused:
                if refused.status == 429 and any(cause.reason == _BUDGET_CAUSE for cause in refused.causes):
                    raise EvictionBlocked(refused.message) from refused
                raise

    def _acting(self, workspace_id: str) -> Transport:
        cluster = self._clusters.find(workspace_id)
        if cluster is None:
            raise DependencyUnavailable(COMPONENT, "the workspace is not served", workspace_id=workspace_id)
        return cluster.acting


def _group(resource: Resource) -> str:
    return f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"


def _collection(resource: Resource, namespace: str) -> str:
    scope = f"/namespaces/{namespace}" if namespace and resource.namespaced else ""
    return f"{_group(resource)}{scope}/{resource.plural}"


def _path(key: ObjectKey) -> str:
    return f"{_collection(key.resource, key.namespace)}/{key.name}"


def _query(dry_run: bool) -> Mapping[str, str]:
    manager = {"fieldManager": FIELD_MANAGER}
    return manager | {"dryRun": "All"} if dry_run else manager


def _options(key: ObjectKey, resource_version: str, dry_run: bool) -> dict[str, Any]:
    preconditions = {"uid": key.uid} if key.uid else {}
    if resource_version:
        preconditions["resourceVersion"] = resource_version
    options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}
    return options | {"dryRun": ["All"]} if dry_run else options


def _check_uid(key: ObjectKey, held: JsonObject) -> None:
    uid = held.get("metadata", {}).get("uid")
    if key.uid and uid != key.uid:
        raise WriteConflict(f"{key} was replaced by a namesake")


def _is_absent(error: Exception) -> bool:
    """A group that is not served has no discovery document; the server says so without a reason."""
    cause = error.__cause__
    return isinstance(cause, Refused) and cause.status == 404
