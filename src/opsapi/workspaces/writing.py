"""Acting on a cluster's objects of any kind: what a domain may do to them, and how that can fail."""

from typing import Any, Protocol

import msgspec

from opsapi.kit.errors import DependencyUnavailable

JsonObject = dict[str, Any]
"""An object as the API server writes it: undecoded JSON, with everything that it holds."""


class WriteConflict(Exception):
    """The object changed or was replaced since it was read; re-read and decide again."""


class WriteRefused(Exception):
    """The cluster understood and refused. `reason` is Kubernetes' reason word (Forbidden, Invalid, …)."""

    def __init__(self, reason: str, message: str, status: int) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.status = status


class TargetGone(Exception):
    """The object does not exist any more."""


class OutcomeUnknown(DependencyUnavailable):
    """A write was sent but no answer tells whether it took effect. It is not repeated: re-read and decide again."""


class EvictionBlocked(Exception):
    """A PodDisruptionBudget forbids the eviction now; it is never bypassed."""


class Resource(msgspec.Struct, frozen=True):
    """A resource of the API by its path: `Resource("apps", "v1", "deployments", "Deployment")`."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


class ObjectKey(msgspec.Struct, frozen=True):
    """One object. `uid` guards against acting on a namesake created since; "" before it exists."""

    workspace_id: str
    resource: Resource
    namespace: str
    name: str
    uid: str = ""

    def __str__(self) -> str:
        """Stable over tries, as items of steps are named: `jobs.batch/shop/report-1`."""
        return "/".join(part for part in (str(self.resource), self.namespace, self.name) if part)


class Objects(Protocol):
    """Reads and writes with the acting credentials, always fresh from the API server, never the cache.

    Raises: WriteConflict where uid or resourceVersion no longer fit (or a name is taken), WriteRefused where the
    cluster says no (RBAC, admission, quota, validation), TargetGone where the object is no more, DependencyUnavailable
    where nothing was changed because the cluster cannot be reached, OutcomeUnknown where a write was sent and its
    answer is missing (no write is ever repeated on its own; the caller re-reads). With `dry_run` the server checks
    everything and keeps nothing.
    """

    async def served(self, workspace_id: str, resource: Resource) -> bool:
        """Whether the cluster serves the resource, by discovery."""
        ...

    async def get(self, key: ObjectKey, subresource: str = "") -> JsonObject:
        """Raises WriteConflict where `key.uid` is stated and another object bears the name."""
        ...

    async def list(
        self, workspace_id: str, resource: Resource, namespace: str = "", *, selector: str = ""
    ) -> list[JsonObject]:
        """All of them, page by page; each with apiVersion and kind set. `selector` is a label selector."""
        ...

    async def create(
        self, workspace_id: str, resource: Resource, body: JsonObject, *, dry_run: bool = False
    ) -> JsonObject:
        """In the namespace that `body` names. A name that is taken is a WriteConflict: look whose it is."""
        ...

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
        """A merge patch (or a strategic one, where lists merge by their keys), under uid and resourceVersion."""
        ...

    async def delete(
        self,
        key: ObjectKey,
        *,
        resource_version: str = "",
        propagation: str = "Background",
        dry_run: bool = False,
    ) -> None:
        """Under the uid, and the resourceVersion where it is stated."""
        ...

    async def evict(self, key: ObjectKey, *, dry_run: bool = False) -> None:
        """A pod, by the eviction API under its uid. Raises EvictionBlocked where a disruption budget forbids it."""
        ...
