import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsapi.applications.errors import ApplicationNotFound
from opsapi.applications.identity import Applications
from opsapi.kit.errors import AmbiguousResource, DependencyUnavailable
from opsapi.workspaces.application_ids import APPLICATION_ID_LABEL, application_id
from opsapi.workspaces.objects import CRON_JOB, DEPLOYMENT, STATEFUL_SET
from opsapi.workspaces.ports import Sync
from opsapi.workspaces.views import Views
from support.callers import grants_of
from support.inventory import FakeCluster, FakeClusters, make_workspace
from support.objects import cron_job, deployment, workload_meta


def applications_of(*clusters: FakeCluster) -> Applications:
    return Applications(Views(FakeClusters(*clusters)))


def test_an_id_survives_re_creation_and_differs_between_places() -> None:
    first = application_id("ws-1", DEPLOYMENT, workload_meta("web", uid="1"))
    assert first == application_id("ws-1", DEPLOYMENT, workload_meta("web", uid="2"))
    others = {
        application_id("ws-2", DEPLOYMENT, workload_meta("web")),
        application_id("ws-1", STATEFUL_SET, workload_meta("web")),
        application_id("ws-1", DEPLOYMENT, workload_meta("web", "pay")),
        application_id("ws-1", DEPLOYMENT, workload_meta("web2")),
    }
    assert len(others | {first}) == 5


@pytest.mark.parametrize("label", ["../etc", "a/b", "", "-x", "a" * 64, "a b", "ä"])
def test_a_label_that_could_not_stand_in_a_path_is_passed_over(label: str) -> None:
    meta = workload_meta("web", labels={APPLICATION_ID_LABEL: label})
    assert application_id("ws-1", DEPLOYMENT, meta) == application_id("ws-1", DEPLOYMENT, workload_meta("web"))


def test_an_application_is_found_by_its_label() -> None:
    cluster = FakeCluster()
    cluster.fake.put(DEPLOYMENT, deployment("web", labels={APPLICATION_ID_LABEL: "app-123"}))
    applications = applications_of(cluster)
    ref, view = applications.find("app-123", grants_of("application:read@ws-123"))
    assert (ref.workspace_id, ref.namespace, ref.name) == ("ws-123", "shop", "web")
    assert view.workspace.id == "ws-123"
    assert applications.workspace_of("app-123", grants_of("application:read")) == "ws-123"


def test_an_id_resolves_only_among_the_workspaces_that_the_caller_may_see() -> None:
    mine, theirs = FakeCluster(make_workspace("ws-mine")), FakeCluster(make_workspace("ws-theirs"))
    theirs.fake.put(DEPLOYMENT, deployment("web", labels={APPLICATION_ID_LABEL: "app-1"}))
    applications = applications_of(mine, theirs)
    with pytest.raises(ApplicationNotFound):
        applications.find("app-1", grants_of("application:read@ws-mine"))
    mine.fake.put(DEPLOYMENT, deployment("api", labels={APPLICATION_ID_LABEL: "app-1"}))
    assert applications.find("app-1", grants_of("application:read@ws-mine"))[0].name == "api"
    with pytest.raises(AmbiguousResource) as caught:
        applications.find("app-1", grants_of("application:read"))
    assert caught.value.details.candidates == [  # type: ignore[attr-defined]
        "ws-mine/shop/Deployment/api",
        "ws-theirs/shop/Deployment/web",
    ]


def test_a_label_that_another_application_took_makes_the_id_ambiguous_until_it_is_gone() -> None:
    cluster = FakeCluster()
    applications = applications_of(cluster)
    grants = grants_of("application:read")
    cluster.fake.put(DEPLOYMENT, deployment("web", labels={APPLICATION_ID_LABEL: "app-1"}))
    cluster.fake.put(CRON_JOB, cron_job("report"))
    assert applications.find("app-1", grants)[0].name == "web"
    cluster.fake.put(DEPLOYMENT, deployment("thief", labels={APPLICATION_ID_LABEL: "app-1"}))
    with pytest.raises(AmbiguousResource):
        applications.find("app-1", grants)
    cluster.fake.put(DEPLOYMENT, deployment("thief"))
    assert applications.find("app-1", grants)[0].name == "web"
    cluster.fake.remove(DEPLOYMENT, "shop", "web")
    with pytest.raises(ApplicationNotFound):
        applications.find("app-1", grants)


def test_what_has_not_been_read_yet_is_unavailable_and_never_not_found() -> None:
    read, unread = FakeCluster(make_workspace("ws-1")), FakeCluster(make_workspace("ws-2"))
    unread.fake.set_sync(STATEFUL_SET, Sync.PENDING)
    read.fake.put(DEPLOYMENT, deployment("web", labels={APPLICATION_ID_LABEL: "app-1"}))
    applications = applications_of(read, unread)
    with pytest.raises(DependencyUnavailable) as caught:
        applications.find("app-2", grants_of("application:read"))
    assert caught.value.details.workspace_id == "ws-2"  # type: ignore[attr-defined]
    assert applications.find("app-1", grants_of("application:read"))[0].name == "web"
    with pytest.raises(ApplicationNotFound):
        applications.find("app-2", grants_of("application:read@ws-1"))


def test_a_workspace_that_was_removed_takes_its_applications_along() -> None:
    cluster = FakeCluster()
    cluster.fake.put(DEPLOYMENT, deployment("web", labels={APPLICATION_ID_LABEL: "app-1"}))
    clusters = FakeClusters(cluster)
    views = Views(clusters)
    applications = Applications(views)
    grants = grants_of("application:read")
    assert applications.find("app-1", grants)
    views.detach("ws-123")
    clusters.opened.clear()
    with pytest.raises(ApplicationNotFound):
        applications.find("app-1", grants)
    assert not cluster.fake.listeners


_change = st.tuples(
    st.sampled_from((DEPLOYMENT, STATEFUL_SET)),
    st.sampled_from(("a", "b", "c")),
    st.sampled_from(("shop", "pay")),
    st.sampled_from(("", "x", "y")),
    st.integers(1, 2),
    st.booleans(),
)


@settings(deadline=None)
@given(st.lists(_change, max_size=40))
def test_the_index_kept_by_differences_equals_one_made_afresh(changes: list[tuple[object, ...]]) -> None:
    cluster = FakeCluster()
    running = applications_of(cluster).index("ws-123", grants_of("workspace:read"))
    for kind, name, namespace, label, generation, removed in changes:
        if removed:
            cluster.fake.remove(kind, namespace, name)  # type: ignore[arg-type]
            continue
        uid = f"{kind}-{namespace}-{name}-{generation}"
        labels = {APPLICATION_ID_LABEL: label} if label else {}
        cluster.fake.put(kind, deployment(str(name), str(namespace), uid=uid, labels=labels))  # type: ignore[arg-type]
    fresh = applications_of(cluster).index("ws-123", grants_of("workspace:read"))
    assert list(running.after(None)) == list(fresh.after(None))
    assert len(running) == len(fresh)
    for label in ("x", "y"):
        key = sorted(ref.uid for ref in running.by_id(label))
        assert key == sorted(ref.uid for ref in fresh.by_id(label))
    expected = sorted(ref.order for ref in running.after(None))
    assert [ref.order for ref in running.after(None)] == expected
