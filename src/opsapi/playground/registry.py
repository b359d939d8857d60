"""What the API server, the controllers and the kubelets share: typed access to the cluster's objects.

Objects are plain JSON dicts and **immutable by convention once stored**: nobody mutates what `get`, `list` or a
callback hands out; who changes an object copies the path that changes. So unchanged sub-trees (a pod template, say)
are shared by thousands of objects.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

Obj = dict[str, Any]


class ChangeType(StrEnum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class Change:
    """One committed write. `old` is None on ADDED; on DELETED `new` is the last state under the deletion's version."""

    type: ChangeType
    resource: str
    new: Obj
    old: Obj | None


@dataclass(frozen=True, slots=True)
class User:
    name: str
    groups: tuple[str, ...] = ()


CONTROLLER_MANAGER = User("system:kube-controller-manager", ("system:masters",))
"""In-process controllers write as this user; admission (quota, limits) still applies to them, as in life."""


class ApiError(Exception):
    """A failed request as the API server words it: `status` is a whole metav1.Status body with `code` and `reason`."""

    def __init__(self, status: Obj) -> None:
        super().__init__(status.get("message", ""))
        self.status = status
        self.code: int = status["code"]
        self.reason: str = status.get("reason", "")


class Registry(Protocol):
    """The machinery below HTTP: defaulting, validation, admission, finalizers, preconditions, storage.

    `resource` is the plural with its group as Kubernetes' GroupResource writes it: `pods`, `deployments.apps`,
    `horizontalpodautoscalers.autoscaling`, `widgets.example.com`. `namespace` is "" for cluster-scoped resources.
    Objects are in the storage version. Every method is synchronous and runs on the event loop's thread.
    All of them raise ApiError.
    """

    def get(self, resource: str, namespace: str, name: str) -> Obj: ...

    def find(self, resource: str, namespace: str, name: str) -> Obj | None:
        """Like get, None where there is none."""
        ...

    def iterate(self, resource: str, namespace: str = "") -> Iterator[Obj]:
        """Every object ("" = in all namespaces); a snapshot, so that writes during the iteration are safe."""
        ...

    def by_owner(self, owner_uid: str, resource: str) -> list[Obj]:
        """Dependents of `resource` whose ownerReferences name the uid; an index, not a scan."""
        ...

    def pods_on_node(self, node: str) -> list[Obj]:
        """Pods with spec.nodeName == node; an index, not a scan."""
        ...

    def create(self, resource: str, namespace: str, obj: Obj, *, user: User = CONTROLLER_MANAGER) -> Obj: ...

    def update(
        self,
        resource: str,
        namespace: str,
        name: str,
        obj: Obj,
        *,
        subresource: str = "",
        user: User = CONTROLLER_MANAGER,
    ) -> Obj:
        """A PUT; conditional (409) with metadata.resourceVersion. `subresource="status"` replaces only status."""
        ...

    def patch_status(self, resource: str, namespace: str, name: str, status: Obj) -> Obj:
        """Replaces `.status` where it differs (no write, no event when equal). Raises 404 where it is gone."""
        ...

    def delete(
        self,
        resource: str,
        namespace: str,
        name: str,
        *,
        grace_seconds: int | None = None,
        propagation: str = "Background",
        uid: str = "",
        user: User = CONTROLLER_MANAGER,
    ) -> Obj:
        """Pods bound to a node get deletionTimestamp and wait for their kubelet, which deletes them with grace 0."""
        ...

    def subscribe(self, resource: str, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Calls back after each committed write of `resource` ("*" = all), in order; returns what ends it.

        Callbacks only enqueue work; they do not write.
        """
        ...
