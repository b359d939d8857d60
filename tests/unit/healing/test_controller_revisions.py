"""auto_heal takes StatefulSets and DaemonSets back to an earlier ControllerRevision and evicts what nobody replaces."""

import copy
from typing import Any

import msgspec
import pytest

from opsapi.kit.errors import PolicyRule
from opsapi.operations.model import Outcome, State, UndoState
from opsapi.playbooks.healing.model import CONTROLLER_REVISIONS, PODS, RESOURCES
from opsapi.policy.model import Waiver
from opsapi.workspaces.writing import JsonObject
from support.healing import UNHURRIED, Ward, container, crashed

FREE = msgspec.structs.replace(UNHURRIED, waivers=(Waiver(account="sa-agent", rules=(PolicyRule.RESIZE,)),))
HASHES = {"StatefulSet": "controller.kubernetes.io/hash", "DaemonSet": "controller-revision-hash"}
_LAG = 2
"""Turns of the clock after which a controller sees a new template."""


def template(release: int) -> JsonObject:
    return {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [container(image=f"shop/db:{release}.0")]}}


class Controlled:
    """Two pods of a StatefulSet or DaemonSet `db`, the second of the newest template; and their controller. It makes
    pods by the template that it has seen, and never replaces a StatefulSet's that is not ready, nor any with OnDelete.
    """

    def __init__(self, ward: Ward, kind: str, strategy: str = "RollingUpdate", *, release: int = 2) -> None:
        self.ward, self.kind, self.resource = ward, kind, RESOURCES[kind]
        self.replaces_ill = kind == "DaemonSet" and strategy != "OnDelete"
        self.on_delete = strategy == "OnDelete"
        self.cures = True
        self.seen, self.late, self.made = template(release), 0, 0
        spec: JsonObject = {
            "selector": {"matchLabels": {"app": "db"}},
            "template": self.seen,
            "updateStrategy": {"type": strategy},
        }
        spec |= {"replicas": 2} if kind == "StatefulSet" else {}
        ward.objects.put(
            self.resource, {"metadata": {"name": "db", "namespace": "shop", "uid": "uid-db"}, "spec": spec}
        )
        for number in range(1, release + 1):
            self._revise(number)
        self.pod("db-0", 1, ready=True)
        self.pod("db-1", release, ready=False, container_status=crashed())
        self._report()
        ward.objects.evicted = lambda pod: self.pod(pod["metadata"]["name"], self._release(self.seen))
        ward.behave = self.turn

    @property
    def held(self) -> JsonObject:
        found = self.ward.objects.find(self.resource, "shop", "db")
        assert found is not None
        return found

    @property
    def image(self) -> str:
        found: str = self.held["spec"]["template"]["spec"]["containers"][0]["image"]
        return found

    @property
    def pods(self) -> dict[str, JsonObject]:
        return {name: pod for (kind, _, name), pod in self.ward.objects.held.items() if kind == PODS}

    def turn(self) -> None:
        held = self.held
        self.late = self.late + 1 if held["spec"]["template"] != self.seen else 0
        if self.late >= _LAG:
            self.seen = held["spec"]["template"]
        for name, pod in self.pods.items():
            old = pod["spec"]["containers"] != self.seen["spec"]["containers"]
            if old and not self.on_delete and (self.replaces_ill or pod["status"]["conditions"][0]["status"] == "True"):
                self.ward.objects.remove(PODS, "shop", name)
                self.pod(name, self._release(self.seen))
        self._report()

    def _release(self, of: JsonObject) -> int:
        return int(of["spec"]["containers"][0]["image"].partition(":")[2][0])

    def _revise(self, number: int) -> None:
        owner = {"apiVersion": "apps/v1", "kind": self.kind, "name": "db", "uid": "uid-db", "controller": True}
        labels = {"app": "db", HASHES[self.kind]: f"h{number}"}
        meta: JsonObject = {"name": f"db-h{number}", "namespace": "shop", "uid": f"uid-db-h{number}", "labels": labels}
        meta |= {"ownerReferences": [owner]}
        data = {"spec": {"template": template(number) | {"$patch": "replace"}}}
        self.ward.objects.put(CONTROLLER_REVISIONS, {"metadata": meta, "data": data, "revision": number})

    def pod(self, name: str, release: int, *, ready: bool | None = None, **more: Any) -> None:
        self.made += 1
        owner = {"apiVersion": "apps/v1", "kind": self.kind, "name": "db", "uid": "uid-db", "controller": True}
        value = f"h{release}" if self.kind == "DaemonSet" else f"db-h{release}"
        labels = {"app": "db", "controller-revision-hash": value}
        meta = {"ownerReferences": [owner], "labels": labels, "uid": f"uid-{name}-{self.made}"}
        well = self.cures if ready is None else ready
        made = self.seen if ready is None else template(release)
        containers = copy.deepcopy(made["spec"]["containers"])
        self.ward.pod(name, "db", ready=well, meta=meta, containers=containers, **more)

    def _report(self) -> None:
        held, pods = self.held, self.pods.values()
        ready = sum(pod["status"]["conditions"][0]["status"] == "True" for pod in pods)
        updated = sum(pod["spec"]["containers"] == self.seen["spec"]["containers"] for pod in pods)
        generation = held["metadata"]["generation"] - (held["spec"]["template"] != self.seen)
        figures = {"replicas": 2, "readyReplicas": ready, "updatedReplicas": updated}
        if self.kind == "DaemonSet":
            figures = {"desiredNumberScheduled": 2, "numberReady": ready, "updatedNumberScheduled": updated}
        status = {"status": figures | {"observedGeneration": generation}}
        self.ward.objects.merge(self.resource, "shop", "db", status)


@pytest.mark.parametrize(
    ("kind", "strategy", "evicted"),
    [
        ("StatefulSet", "RollingUpdate", ["pods/shop/db-1"]),
        ("DaemonSet", "RollingUpdate", []),
        ("DaemonSet", "OnDelete", ["pods/shop/db-1"]),
    ],
)
async def test_a_bad_release_is_taken_back_and_only_what_nobody_replaces_is_evicted(
    ward: Ward, kind: str, strategy: str, evicted: list[str]
) -> None:
    sick = Controlled(ward, kind, strategy)
    ended = await ward.healed("db")
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.CHANGED), ended
    assert ended.step("rollback_release").message == f"Rolled shop/{kind}/db back from revision 2 to the template of 1"
    assert sick.image == "shop/db:1.0"
    assert {pod["spec"]["containers"][0]["image"] for pod in sick.pods.values()} == {"shop/db:1.0"}
    assert "$patch" not in sick.held["spec"]["template"]
    assert [write.verb for write in ward.objects.writes] == ["patch", *("evict" for _ in evicted)]
    assert ward.objects.targets("evict") == evicted


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
async def test_an_earlier_revision_that_does_not_heal_is_left_again(ward: Ward, kind: str) -> None:
    sick = Controlled(ward, kind)
    sick.cures = False
    ended = await ward.healed("db")
    assert ended.state is State.ROLLED_BACK, ended
    assert ended.error is not None
    assert ended.error.code == "NOT_READY"
    assert sick.image == "shop/db:2.0"
    assert len(ward.objects.targets("patch")) == 2
    assert len(ward.objects.targets("evict")) == (kind == "StatefulSet")
    undo = ended.step("rollback_release").undo
    assert undo is not None
    assert undo.state is UndoState.UNDONE


async def test_a_controller_that_does_not_see_the_template_gets_no_pod_evicted(ward: Ward) -> None:
    sick = Controlled(ward, "StatefulSet")
    ward.behave = lambda: None
    ended = await ward.healed("db")
    assert ended.error is not None
    assert (ended.state, ended.error.code) == (State.ROLLED_BACK, "NOT_OBSERVED")
    assert sick.image == "shop/db:2.0"
    assert ward.objects.targets("evict") == []


async def test_a_statefulsets_pod_gets_its_memory_by_eviction(ward: Ward) -> None:
    ward.policy = FREE
    ward.arrange()
    sick = Controlled(ward, "StatefulSet", release=1)
    sick.pod("db-1", 1, ready=False, container_status=crashed("OOMKilled", 137))
    ended = await ward.healed("db")
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.CHANGED), ended
    assert [(write.verb, write.target) for write in ward.objects.writes] == [
        ("patch", "statefulsets.apps/shop/db"),
        ("evict", "pods/shop/db-1"),
    ]
    limits = {pod["spec"]["containers"][0]["resources"]["limits"]["memory"] for pod in sick.pods.values()}
    assert limits == {"260Mi"}
