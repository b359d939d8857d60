"""metrics.k8s.io and the Prometheus exposition agree with the behaviour and with each other."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from opsapi.playground.telemetry.counters import BUCKETS, share_below
from opsapi.playground.telemetry.prometheus import line
from opsapi.playground.world import World
from support.playground_world import container, deployment, pods_of, resources, service, small_world

PROFILE = json.dumps(
    {
        "traffic": {"rps": 30, "swing": 0, "noise": 0},
        "cpu": {"base_millicores": 0, "per_request_ms": 10},
        "memory": {"base": "200Mi", "per_rps": "0"},
        "error_rate": 0.1,
    }
)


def serving() -> World:
    world = small_world()
    world.apply(service("web"))
    world.apply(deployment("web", container(resources=resources()), profile=PROFILE))
    world.advance(300)
    return world


def values(world: World, name: str, **labels: str) -> list[float]:
    wanted = [f'{key}="{text}"' for key, text in labels.items()]
    return [
        float(text.rpartition(" ")[2])
        for text in world.exposition.text().splitlines()
        if text.startswith(name + "{") and all(item in text for item in wanted)
    ]


def test_pod_metrics_show_the_share_of_each_ready_pod() -> None:
    world = serving()
    found = world.metrics.pods("default")
    assert len(found) == 3
    for item in found:
        usage = item["containers"][0]["usage"]
        assert int(usage["cpu"][:-1]) / 1e6 == pytest.approx(100, rel=0.08)
        assert int(usage["memory"][:-2]) / 1024 == pytest.approx(200, rel=0.03)
        assert item["window"] == "15s"


def test_a_node_uses_what_its_pods_use_and_its_own_daemons() -> None:
    world = serving()
    pods = sum(int(item["containers"][0]["usage"]["cpu"][:-1]) for item in world.metrics.pods()) / 1e6
    nodes = sum(int(item["usage"]["cpu"][:-1]) for item in world.metrics.nodes()) / 1e6
    assert nodes == pytest.approx(pods + 3 * 110, rel=1e-6)


def test_young_and_sleeping_pods_and_dead_nodes_have_no_metrics() -> None:
    world = small_world()
    world.apply(deployment("web"))
    world.advance(10)
    assert world.metrics.pods() == []
    world.advance(60)
    assert len(world.metrics.pods()) == 3
    world.heartbeats.set_power("node-1", up=False)
    world.advance(60)
    assert len(world.metrics.pods()) == 2
    assert [item["metadata"]["name"] for item in world.metrics.nodes()] == ["node-2", "node-3"]


def test_counters_grow_by_the_rates() -> None:
    world = serving()
    before = sum(values(world, "http_requests_total"))
    cpu_before = sum(values(world, "container_cpu_usage_seconds_total", container="app"))
    world.advance(600)
    assert sum(values(world, "http_requests_total")) - before == pytest.approx(600 * 30, rel=0.01)
    cpu = sum(values(world, "container_cpu_usage_seconds_total", container="app"))
    assert cpu - cpu_before == pytest.approx(600 * 0.3, rel=0.05)
    failed = sum(values(world, "http_requests_total", code="500"))
    assert failed / sum(values(world, "http_requests_total")) == pytest.approx(0.1, rel=0.02)


def test_counters_never_fall_between_scrapes() -> None:
    world = serving()
    last = 0.0
    for _ in range(10):
        world.advance(7)
        now = sum(values(world, "http_requests_total"))
        assert now > last
        last = now


def test_a_restart_begins_its_counters_anew() -> None:
    world = serving()
    pod = pods_of(world, "web")[0]
    name = pod["metadata"]["name"]
    before = values(world, "container_cpu_usage_seconds_total", pod=name)[0]
    world.kubelets.kill(pod, "app", 1, "Error")
    world.advance(30)
    assert values(world, "container_cpu_usage_seconds_total", pod=name)[0] < before
    assert values(world, "kube_pod_container_status_restarts_total", pod=name) == [1]


def test_buckets_are_cumulative_and_end_in_the_count() -> None:
    world = serving()
    name = pods_of(world, "web")[0]["metadata"]["name"]
    buckets = values(world, "http_request_duration_seconds_bucket", pod=name)
    assert len(buckets) == len(BUCKETS) + 1
    assert buckets == sorted(buckets)
    assert buckets[-1] == values(world, "http_request_duration_seconds_count", pod=name)[0]


@given(st.floats(0.1, 1000), st.floats(1.01, 100))
def test_latencies_have_the_quantiles_of_their_profile(p50: float, spread: float) -> None:
    assert share_below(p50, p50, p50 * spread) == pytest.approx(0.5)
    assert share_below(p50 * spread, p50, p50 * spread) == pytest.approx(0.99)


def test_a_prometheus_parser_reads_the_exposition_whole() -> None:
    families = {family.name: family for family in text_string_to_metric_families(serving().exposition.text())}
    assert families["http_requests"].type == "counter"
    assert families["http_request_duration_seconds"].type == "histogram"
    working_sets = families["container_memory_working_set_bytes"].samples
    assert sorted(sample.labels["container"] for sample in working_sets) == ["", "", "", "app", "app", "app"]
    assert {sample.labels["resource"] for sample in families["kube_pod_container_resource_requests"].samples} == {
        "cpu",
        "memory",
    }


def test_only_a_container_with_a_cpu_limit_is_throttled() -> None:
    world = small_world()
    profile = '{"cpu": {"base_millicores": 400}}'
    limited = container(resources={"limits": {"cpu": "200m"}})
    world.apply(deployment("tight", limited, replicas=1, profile=profile))
    world.apply(deployment("free", container(resources=resources()), replicas=1, profile=profile))
    world.advance(300)
    assert len(values(world, "container_cpu_cfs_periods_total")) == 1
    (periods,) = values(world, "container_cpu_cfs_periods_total")
    (throttled,) = values(world, "container_cpu_cfs_throttled_periods_total")
    assert 0 < throttled <= periods


def test_objects_are_told_as_kube_state_metrics_tells_them() -> None:
    world = serving()
    pod = pods_of(world, "web")[0]["metadata"]
    replica_set = pod["ownerReferences"][0]["name"]
    owner = {"pod": pod["name"], "owner_kind": "ReplicaSet", "owner_name": replica_set, "owner_is_controller": "true"}
    assert values(world, "kube_pod_owner", **owner) == [1]
    assert values(world, "kube_replicaset_owner", replicaset=replica_set, owner_name="web") == [1]
    assert values(world, "kube_deployment_status_replicas_ready", deployment="web") == [3]
    assert values(world, "kube_deployment_spec_replicas", deployment="web") == [3]
    ready = {
        state: values(world, "kube_pod_status_ready", pod=pod["name"], condition=state) for state in ("true", "false")
    }
    assert ready == {"true": [1], "false": [0]}
    world.kubelets.kill(pods_of(world, "web")[0], "app", 137, "OOMKilled")
    world.advance(30)
    assert values(world, "kube_pod_container_status_last_terminated_reason", reason="OOMKilled") == [1]


def test_label_values_are_escaped() -> None:
    assert line("x", {"a": 'say "hi"\\\n'}, 1) == 'x{a="say \\"hi\\"\\\\\\n"} 1'
    assert line("x", {}, math.inf) == "x inf"


def test_a_service_without_pods_starves_its_callers() -> None:
    world = small_world()
    world.apply(service("web"))
    world.apply(deployment("web", profile='{"traffic": {"rps": 10}, "error_rate": 0, "depends_on": ["db"]}'))
    world.apply(service("db"))
    world.advance(60)
    one = world.observation.running(pods_of(world, "web")[0])[0]
    assert world.observation.measure(one).error_rate == 1.0
    world.apply(deployment("db", replicas=1))
    world.advance(60)
    assert world.observation.measure(one).error_rate == 0.0
