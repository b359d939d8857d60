"""The plan over anything that may be asked of anything that may be there."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from opsapi.applications.demand import pod_demand
from opsapi.applications.ports import AutoscalerBounds, ScaleState, WorkloadRef
from opsapi.applications.scaling import plan
from opsapi.applications.scaling_model import Capacity, Decision, ScaleFacts
from opsapi.kit.caller import AccountKind
from opsapi.policy.evaluation import judge_replicas
from opsapi.policy.model import PolicySettings, Subject
from opsapi.workspaces.objects import DEPLOYMENT, Container, ObjectMeta, Pod, PodSpec, Resources
from opsapi.workspaces.pods import effective_requests
from support.workloads import make_autoscaler, make_deployment

AGENT = Subject("sa-agent", AccountKind.AGENT, "ws-123", "act")
counts = st.integers(0, 150)


@st.composite
def bounds(draw: st.DrawFn) -> AutoscalerBounds | None:
    if draw(st.booleans()):
        return None
    low = draw(st.integers(1, 150))
    return AutoscalerBounds(low, draw(st.integers(low, 200)), draw(st.none() | st.integers(1, 100)), None)


def decide(current: int, asked: int, wanted: AutoscalerBounds | None, held: AutoscalerBounds | None) -> Decision:
    deployment = make_deployment(replicas=current)
    autoscaler = None
    if held is not None:
        autoscaler = make_autoscaler(low=held.min_replicas, high=held.max_replicas, cpu=held.target_cpu_percentage)
    facts = ScaleFacts(
        ref=WorkloadRef("ws-123", DEPLOYMENT, "shop", "web", deployment.metadata.uid),
        application_id="app-1",
        workload=deployment,
        scale=ScaleState(deployment.metadata.uid, "10", current, current),
        autoscaler=autoscaler,
        scaled_object=None,
        namespace_labels={},
        quotas=(),
        budgets=(),
        capacity=Capacity(wanted=0, room_for=0, fits=True),
    )
    return plan(facts, AGENT, PolicySettings(), replicas=asked, bounds=wanted, reason=None)


@given(counts, counts, bounds(), bounds())
def test_what_is_allowed_is_never_negative_never_beyond_the_maximum_and_within_bounds(
    current: int, asked: int, wanted: AutoscalerBounds | None, held: AutoscalerBounds | None
) -> None:
    decision = decide(current, asked, wanted, held)
    order = decision.order
    assert order.replicas >= 0
    if wanted is not None:
        assert wanted.min_replicas <= order.replicas <= wanted.max_replicas
    refused = decision.change is not None and judge_replicas(PolicySettings(), AGENT, decision.change)
    if not decision.refusals and not refused and not decision.nothing_to_do:
        assert order.replicas <= PolicySettings().max_replicas
        if held is not None:
            assert wanted is not None
        if wanted is not None:
            assert wanted.max_replicas <= PolicySettings().max_replicas


@given(counts, counts, bounds(), bounds())
def test_there_is_something_to_do_exactly_where_something_would_change(
    current: int, asked: int, wanted: AutoscalerBounds | None, held: AutoscalerBounds | None
) -> None:
    decision = decide(current, asked, wanted, held)
    changes = [change for written in decision.objects for change in written.changes]
    assert decision.nothing_to_do == (not changes)
    assert all(change.before != change.after for change in changes)
    assert ("spec.replicas" in {change.field for change in changes}) == (decision.order.replicas != current)


millis = st.integers(0, 4000).map(lambda m: f"{m}m")


@st.composite
def containers(draw: st.DrawFn) -> Container:
    resources = Resources(requests={"cpu": draw(millis), "memory": f"{draw(st.integers(0, 64))}Mi"})
    policy = draw(st.sampled_from(["", "Always"]))
    return Container(name="c", resources=resources, restart_policy=policy)


@given(st.lists(containers(), min_size=1, max_size=3), st.lists(containers(), max_size=3))
def test_a_quota_counts_what_the_scheduler_reserves(main: list[Container], init: list[Container]) -> None:
    spec = PodSpec(containers=tuple(main), init_containers=tuple(init))
    cpu, memory = effective_requests(Pod(metadata=ObjectMeta(), spec=spec))
    assert pod_demand(spec, "requests", "cpu") == Decimal(cpu) / 1000
    assert pod_demand(spec, "requests", "memory") == memory


def test_a_container_that_states_nothing_makes_the_demand_unknown() -> None:
    spec = PodSpec(containers=(Container(name="a", resources=Resources(limits={"cpu": "1"})), Container(name="b")))
    assert pod_demand(spec, "requests", "cpu") is None
    assert pod_demand(PodSpec(containers=spec.containers[:1]), "requests", "cpu") == 1
