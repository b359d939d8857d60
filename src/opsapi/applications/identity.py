"""From an application's id to the object it stands for, among the workspaces that a caller may see."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence

import msgspec

from opsapi.applications.errors import ApplicationNotFound
from opsapi.kit.errors import AmbiguousResource, DependencyUnavailable
from opsapi.kit.permissions import Grants
from opsapi.workspaces.application_ids import application_id
from opsapi.workspaces.objects import APPLICATION_KINDS, CronJob, Kind, KubernetesObject, Workload
from opsapi.workspaces.ports import Sync
from opsapi.workspaces.views import Views, WorkspaceView


class ApplicationRef(msgspec.Struct, frozen=True):
    """Where an application stands. `uid` changes when it is re-created, `id` does not."""

    id: str
    workspace_id: str
    kind: Kind
    namespace: str
    name: str
    uid: str

    @property
    def place(self) -> str:
        """`ws-123/shop/Deployment/web`: how candidates of an ambiguous id are listed."""
        return f"{self.workspace_id}/{self.namespace}/{self.kind.kind}/{self.name}"

    @property
    def order(self) -> tuple[str, str, str, str]:
        return self.namespace, self.name, self.kind.kind, self.uid


Order = tuple[str, str, str, str]


class ApplicationIndex:
    """One workspace's applications by id and in the order of namespace, name and kind; kept by differences."""

    def __init__(self, view: WorkspaceView) -> None:
        self.view = view
        self._by_id: dict[str, dict[str, ApplicationRef]] = {}
        self._by_uid: dict[str, ApplicationRef] = {}
        self._order: list[Order] = []
        self.close = view.inventory.subscribe(self._observe)

    def __len__(self) -> int:
        return len(self._by_uid)

    def by_id(self, wanted: str) -> Sequence[ApplicationRef]:
        held = self._by_id.get(wanted)
        return list(held.values()) if held else ()

    def named(self, kind: Kind, name: str) -> list[ApplicationRef]:
        """Those of `kind` with this name, in whatever namespace."""
        return [ref for ref in self._by_uid.values() if ref.name == name and ref.kind == kind]

    def after(self, position: Order | None, namespace: str = "") -> Iterator[ApplicationRef]:
        """In order, from behind `position`; only one namespace's where given."""
        first = bisect_right(self._order, position) if position is not None else 0
        if namespace:
            first = max(first, bisect_left(self._order, (namespace, "", "", "")))
        for order in self._order[first:]:
            if namespace and order[0] != namespace:
                return
            yield self._by_uid[order[3]]

    def _observe(self, kind: Kind, old: KubernetesObject | None, new: KubernetesObject | None) -> None:
        if kind not in APPLICATION_KINDS:
            return
        if (
            isinstance(old, Workload | CronJob)
            and isinstance(new, Workload | CronJob)
            and old.metadata.uid == new.metadata.uid
            and old.metadata.labels == new.metadata.labels
        ):
            return
        if isinstance(old, Workload | CronJob):
            self._forget(old.metadata.uid)
        if isinstance(new, Workload | CronJob):
            meta = new.metadata
            workspace_id = self.view.workspace.id
            named = application_id(workspace_id, kind, meta)
            ref = ApplicationRef(named, workspace_id, kind, meta.namespace, meta.name, meta.uid)
            self._by_uid[meta.uid] = ref
            self._by_id.setdefault(named, {})[meta.uid] = ref
            insort(self._order, ref.order)

    def _forget(self, uid: str) -> None:
        ref = self._by_uid.pop(uid, None)
        if ref is None:
            return
        held = self._by_id[ref.id]
        del held[uid]
        if not held:
            del self._by_id[ref.id]
        del self._order[bisect_left(self._order, ref.order)]


class Applications:
    """Finds applications by id for a caller; implements what the guard needs to know of their workspaces."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._indexes: dict[str, ApplicationIndex] = {}
        views.watch(self)

    def attached(self, view: WorkspaceView) -> None:
        self._indexes[view.workspace.id] = ApplicationIndex(view)

    def detached(self, view: WorkspaceView) -> None:
        index = self._indexes.pop(view.workspace.id, None)
        if index is not None:
            index.close()

    def index(self, workspace_id: str, grants: Grants) -> ApplicationIndex:
        """Raises WorkspaceNotFound."""
        view = self._views.find(workspace_id, grants)
        return self._indexes[view.workspace.id]

    def find(self, wanted: str, grants: Grants) -> tuple[ApplicationRef, WorkspaceView]:
        """Raises ApplicationNotFound, AmbiguousResource where tenants gave one id to several, DependencyUnavailable
        while it might stand in a workspace that has not been read yet."""
        found: list[tuple[ApplicationRef, WorkspaceView]] = []
        unread: WorkspaceView | None = None
        for view in self._views.visible(grants):
            index = self._indexes[view.workspace.id]
            found += [(ref, view) for ref in index.by_id(wanted)]
            if unread is None and any(view.inventory.state(kind).sync is Sync.PENDING for kind in APPLICATION_KINDS):
                unread = view
        if len(found) > 1:
            places = sorted(ref.place for ref, _ in found)
            raise AmbiguousResource("application", wanted, places, "a label hexabase.ai/application-id that is unique")
        if found:
            return found[0]
        if unread is not None:
            reason = "its applications have not been read yet"
            raise DependencyUnavailable("kubernetes_api", reason, workspace_id=unread.workspace.id)
        raise ApplicationNotFound(wanted)

    def workspace_of(self, wanted: str, grants: Grants) -> str:
        """The workspace that holds the application. Raises as `find` does."""
        return self.find(wanted, grants)[0].workspace_id
