"""The playground's controllers and kubelets on a registry, without HTTP, on virtual time."""

import json
import os
import subprocess
import sys

import pytest

from opsapi.playground.faults.world import FaultError, FaultSpec
from opsapi.playground.registry import ApiError, Obj
from opsapi.playground.world import World
from support.playground_world import (
    condition,
    container,
    deployment,
    events,
    messages,
    pods_of,
    ready_pods,
    resources,
    service,
    small_world,
    status_of,
)

READINESS = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 5}


def get(world: World, resource: str, name: str, namespace: str = "default") -> Obj:
    return world.registry.get(resource, namespace, name)


def set_image(world: World, name: str, image: str) -> None:
    found = get(world, "deployments.apps", name)
    template = found["spec"]["template"]
    changed = {**template["spec"]["containers"][0], "image": image}
    pod_spec = {**template["spec"], "containers": [changed, *template["spec"]["containers"][1:]]}
    spec = {**found["spec"], "template": {**template, "spec": pod_spec}}
    world.registry.update("deployments.apps", "default", name, {**found, "spec": spec})


def scale(world: World, name: str, replicas: int, resource: str = "deployments.apps") -> None:
    found = get(world, resource, name)
    world.registry.update(resource, "default", name, {**found, "spec": {**found["spec"], "replicas": replicas}})


def test_a_deployment_becomes_available_with_the_conditions_of_a_real_one() -> None:
    world = small_world()
    world.apply(deployment("web", container(readinessProbe=READINESS)))
    world.advance(30)
    found = get(world, "deployments.apps", "web")
    assert found["status"]["availableReplicas"] == found["status"]["updatedReplicas"] == 3
    assert condition(found, "Available")["reason"] == "MinimumReplicasAvailable"
    progressing = condition(found, "Progressing")
    digest = pods_of(world, "web")[0]["metadata"]["labels"]["pod-template-hash"]
    assert progressing["message"] == f'ReplicaSet "web-{digest}" has successfully progressed.'
    assert messages(world, "ScalingReplicaSet") == [f"Scaled up replica set web-{digest} from 0 to 3"]
    assert {pod["spec"]["nodeName"] for pod in pods_of(world, "web")} == {"node-1", "node-2", "node-3"}


def test_a_rolling_update_never_falls_below_its_minimum_nor_exceeds_its_surge() -> None:
    world = small_world()
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}
    world.apply(deployment("web", container(readinessProbe=READINESS), replicas=4, strategy=rolling))
    world.advance(60)
    set_image(world, "web", "registry.example/shop/app:2.0")
    world.settle()
    seen = []
    for _ in range(240):
        world.advance(0.5)
        alive = [pod for pod in pods_of(world, "web") if "deletionTimestamp" not in pod["metadata"]]
        seen.append((len(alive), len([pod for pod in alive if condition(pod, "Ready").get("status") == "True"])))
    assert max(total for total, _ in seen) == 5
    assert min(ready for _, ready in seen) >= 3
    assert {pod["spec"]["containers"][0]["image"] for pod in pods_of(world, "web")} == {"registry.example/shop/app:2.0"}
    assert get(world, "deployments.apps", "web")["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"


def test_going_back_to_an_old_template_reuses_its_replica_set_as_the_newest_revision() -> None:
    world = small_world()
    world.apply(deployment("web"))
    world.advance(30)
    first = pods_of(world, "web")[0]["metadata"]["labels"]["pod-template-hash"]
    set_image(world, "web", "registry.example/shop/app:2.0")
    world.advance(60)
    set_image(world, "web", "registry.example/shop/app:1.0")
    world.advance(60)
    assert {pod["metadata"]["labels"]["pod-template-hash"] for pod in pods_of(world, "web")} == {first}
    annotations = get(world, "replicasets.apps", f"web-{first}")["metadata"]["annotations"]
    assert annotations["deployment.kubernetes.io/revision"] == "3"
    assert annotations["deployment.kubernetes.io/revision-history"] == "1"


def test_old_replica_sets_beyond_the_history_limit_go() -> None:
    world = small_world()
    world.apply(deployment("web", replicas=1, revisionHistoryLimit=2))
    for version in range(2, 7):
        world.advance(60)
        set_image(world, "web", f"registry.example/shop/app:{version}.0")
    world.advance(120)
    assert len(list(world.registry.iterate("replicasets.apps"))) == 3


def test_recreate_starts_no_new_pod_before_the_last_old_one_is_gone() -> None:
    world = small_world()
    world.apply(deployment("web", strategy={"type": "Recreate"}, profile='{"stop_seconds": 10}'))
    world.advance(30)
    set_image(world, "web", "registry.example/shop/app:2.0")
    world.settle()
    for _ in range(80):
        world.advance(0.5)
        assert len({pod["spec"]["containers"][0]["image"] for pod in pods_of(world, "web")}) <= 1
    assert len(ready_pods(world, "web")) == 3
    assert pods_of(world, "web")[0]["spec"]["containers"][0]["image"].endswith(":2.0")


def test_a_paused_deployment_resizes_but_does_not_roll() -> None:
    world = small_world()
    world.apply(deployment("web", paused=False))
    world.advance(30)
    found = get(world, "deployments.apps", "web")
    world.registry.update("deployments.apps", "default", "web", {**found, "spec": {**found["spec"], "paused": True}})
    set_image(world, "web", "registry.example/shop/app:2.0")
    scale(world, "web", 5)
    world.advance(30)
    images = {pod["spec"]["containers"][0]["image"] for pod in pods_of(world, "web")}
    assert images == {"registry.example/shop/app:1.0"}
    assert len(pods_of(world, "web")) == 5
    assert condition(get(world, "deployments.apps", "web"), "Progressing")["reason"] == "DeploymentPaused"


def test_a_rollout_that_gets_nowhere_exceeds_its_deadline() -> None:
    world = small_world()
    world.apply(deployment("web", progressDeadlineSeconds=60))
    world.advance(30)
    set_image(world, "web", "registry.example/shop/app:nosuch")
    world.advance(90)
    progressing = condition(get(world, "deployments.apps", "web"), "Progressing")
    assert (progressing["status"], progressing["reason"]) == ("False", "ProgressDeadlineExceeded")
    assert len(ready_pods(world, "web")) == 3


def test_an_image_that_is_not_there_backs_off_with_the_words_of_containerd() -> None:
    world = small_world()
    world.apply(deployment("bad", container(image="nosuch/image:1"), replicas=1))
    world.advance(10)
    waiting = status_of(pods_of(world, "bad")[0])["state"]["waiting"]
    assert waiting["reason"] == "ImagePullBackOff"
    assert waiting["message"].startswith('Back-off pulling image "nosuch/image:1": ErrImagePull: failed to pull')
    assert any("pull access denied" in text for text in messages(world, "Failed"))
    world.advance(400)
    assert events(world, "BackOff")[0]["count"] > 3


def test_a_missing_environment_variable_crash_loops_with_growing_back_off() -> None:
    world = small_world()
    world.apply(deployment("crash", replicas=1, profile='{"requires_env": ["DATABASE_URL"]}'))
    world.advance(120)
    status = status_of(pods_of(world, "crash")[0])
    assert status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert status["state"]["waiting"]["message"].startswith("back-off 1m20s restarting failed container=app pod=crash-")
    assert status["restartCount"] == 4
    assert status["lastState"]["terminated"]["exitCode"] == 1
    assert "in pod crash-" in messages(world, "BackOff")[0]


def test_setting_the_missing_variable_ends_the_crash_loop() -> None:
    world = small_world()
    profile = '{"requires_env": ["DATABASE_URL"]}'
    world.apply(deployment("crash", replicas=1, profile=profile))
    world.advance(60)
    env = [{"name": "DATABASE_URL", "value": "postgres://db/shop"}]
    world.apply(deployment("crash", container(env=env), replicas=1, profile=profile))
    world.advance(60)
    assert len(ready_pods(world, "crash")) == 1


def test_memory_beyond_the_limit_is_oom_killed_and_restarted() -> None:
    world = small_world()
    hungry = container(resources=resources(limit="100Mi"))
    world.apply(deployment("oom", hungry, replicas=1, profile='{"memory": {"base": "300Mi"}}'))
    world.advance(120)
    status = status_of(pods_of(world, "oom")[0])
    ended = status["lastState"].get("terminated") or status["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")
    assert status["restartCount"] >= 2
    assert "Memory cgroup out of memory" in messages(world, "OOMKilling")[0]


def test_a_higher_limit_stops_the_oom_kills() -> None:
    world = small_world()
    profile = '{"memory": {"base": "300Mi"}}'
    world.apply(deployment("oom", container(resources=resources(limit="100Mi")), replicas=1, profile=profile))
    world.advance(60)
    world.apply(deployment("oom", container(resources=resources(limit="400Mi")), replicas=1, profile=profile))
    world.advance(120)
    assert [status_of(pod)["restartCount"] for pod in ready_pods(world, "oom")] == [0]


def test_a_pod_that_fits_nowhere_says_why_for_each_node_and_starts_once_it_fits() -> None:
    world = small_world(4)
    node = world.registry.get("nodes", "", "node-4")
    world.registry.update("nodes", "", "node-4", {**node, "spec": {**node["spec"], "unschedulable": True}})
    world.apply(deployment("big", container(resources=resources(cpu="6")), replicas=1))
    world.advance(5)
    pod = pods_of(world, "big")[0]
    scheduled = condition(pod, "PodScheduled")
    assert scheduled["reason"] == "Unschedulable"
    assert scheduled["message"] == (
        "0/4 nodes are available: 1 node(s) were unschedulable, 3 Insufficient cpu. no new claims to deallocate, "
        "preemption: 0/4 nodes are available: 1 Preemption is not helpful for scheduling, "
        "3 No preemption victims found for incoming pod."
    )
    grown = world.registry.get("nodes", "", "node-1")
    allocatable = {**grown["status"]["allocatable"], "cpu": "8"}
    world.registry.patch_status("nodes", "", "node-1", {**grown["status"], "allocatable": allocatable})
    world.advance(30)
    assert pods_of(world, "big")[0]["spec"]["nodeName"] == "node-1"


def test_a_full_quota_stops_a_replica_set_with_the_message_of_a_real_one() -> None:
    world = small_world()
    quota = {"hard": {"pods": "2", "requests.cpu": "1"}}
    world.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "quota", "namespace": "default"},
            "spec": quota,
        }
    )
    world.apply(deployment("web", container(resources=resources())))
    world.advance(60)
    found = get(world, "deployments.apps", "web")
    failure = condition(found, "ReplicaFailure")
    assert failure["reason"] == "FailedCreate"
    assert "is forbidden: exceeded quota: quota, requested: pods=1, used: pods=2, limited: pods=2" in failure["message"]
    assert found["status"]["replicas"] == 2
    assert get(world, "resourcequotas", "quota")["status"]["used"] == {"pods": "2", "requests.cpu": "200m"}
    combined = [text for text in messages(world, "FailedCreate") if text.startswith("(combined from similar events)")]
    assert len(combined) == 1


def test_raising_the_quota_lets_the_replica_set_finish() -> None:
    world = small_world()
    body: Obj = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "quota", "namespace": "default"}}
    world.apply({**body, "spec": {"hard": {"pods": "2"}}})
    world.apply(deployment("web"))
    world.advance(60)
    world.apply({**body, "spec": {"hard": {"pods": "5"}}})
    world.advance(400)
    found = get(world, "deployments.apps", "web")
    assert found["status"]["availableReplicas"] == 3
    assert not condition(found, "ReplicaFailure")


def test_a_missing_config_map_is_a_config_error_until_it_is_made() -> None:
    world = small_world()
    env = [{"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "mode"}}}]
    world.apply(deployment("web", container(env=env), replicas=1))
    world.advance(20)
    waiting = status_of(pods_of(world, "web")[0])["state"]["waiting"]
    assert waiting == {"reason": "CreateContainerConfigError", "message": 'configmap "settings" not found'}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "default"}}
    world.apply({**body, "data": {"other": "x"}})
    world.advance(20)
    waiting = status_of(pods_of(world, "web")[0])["state"]["waiting"]
    assert waiting["message"] == "couldn't find key mode in ConfigMap default/settings"
    world.apply({**body, "data": {"mode": "fast"}})
    world.advance(20)
    assert len(ready_pods(world, "web")) == 1


def test_a_missing_secret_volume_keeps_the_pod_in_creation() -> None:
    world = small_world()
    volumes = [{"name": "tls", "secret": {"secretName": "web-tls"}}]
    world.apply(deployment("web", replicas=1, pod={"volumes": volumes}))
    world.advance(60)
    assert messages(world, "FailedMount") == ['MountVolume.SetUp failed for volume "tls" : secret "web-tls" not found']
    assert status_of(pods_of(world, "web")[0])["state"]["waiting"]["reason"] == "ContainerCreating"


def test_a_failing_readiness_probe_takes_a_pod_out_of_its_service() -> None:
    world = small_world()
    world.apply(service("web"))
    world.apply(deployment("web", container(readinessProbe=READINESS), profile='{"readiness": {"never": true}}'))
    world.advance(60)
    assert not ready_pods(world, "web")
    assert "Readiness probe failed: HTTP probe failed with statuscode: 503" in messages(world, "Unhealthy")
    subset = get(world, "endpoints", "web")["subsets"][0]
    assert "addresses" not in subset
    assert len(subset["notReadyAddresses"]) == 3
    piece = next(iter(world.registry.iterate("endpointslices.discovery.k8s.io")))
    assert [item["conditions"]["ready"] for item in piece["endpoints"]] == [False, False, False]


def test_endpoints_name_the_ports_that_the_pods_serve() -> None:
    world = small_world()
    ports = [{"name": "http", "containerPort": 8080}]
    world.apply(
        service("web", ports=[{"name": "web", "port": 80, "targetPort": "http"}, {"name": "raw", "port": 9000}])
    )
    world.apply(deployment("web", container(ports=ports)))
    world.advance(30)
    subset = get(world, "endpoints", "web")["subsets"][0]
    assert {item["name"]: item["port"] for item in subset["ports"]} == {"web": 8080, "raw": 9000}
    assert len(subset["addresses"]) == 3


def test_a_failing_liveness_probe_restarts_the_container() -> None:
    world = small_world()
    probe = {"httpGet": {"path": "/live", "port": 8080}, "periodSeconds": 5, "failureThreshold": 2}
    profile = json.dumps({"liveness": {"every_seconds": 60, "for_seconds": 30}})
    world.apply(deployment("web", container(livenessProbe=probe), replicas=1, profile=profile))
    world.advance(60)
    assert status_of(pods_of(world, "web")[0])["restartCount"] == 1
    assert messages(world, "Killing") == ["Container app failed liveness probe, will be restarted"]


def test_a_stateful_set_comes_up_and_goes_down_in_order_with_its_claims() -> None:
    world = small_world()
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    body = deployment("db", container(readinessProbe=READINESS))
    spec = {**body["spec"], "serviceName": "db", "volumeClaimTemplates": [claim]}
    world.apply({**body, "kind": "StatefulSet", "spec": spec})
    order: list[str] = []
    for _ in range(120):
        world.advance(0.5)
        order += [p["metadata"]["name"] for p in ready_pods(world, "db") if p["metadata"]["name"] not in order]
    assert order == ["db-0", "db-1", "db-2"]
    claims = {item["metadata"]["name"]: item for item in world.registry.iterate("persistentvolumeclaims")}
    assert sorted(claims) == ["data-db-0", "data-db-1", "data-db-2"]
    assert {item["status"]["phase"] for item in claims.values()} == {"Bound"}
    scale(world, "db", 1, "statefulsets.apps")
    world.advance(60)
    assert [pod["metadata"]["name"] for pod in pods_of(world, "db")] == ["db-0"]
    assert len(list(world.registry.iterate("persistentvolumeclaims"))) == 3


def test_a_stateful_set_rolls_from_its_last_pod_to_its_first() -> None:
    world = small_world()
    body = deployment("db", container(readinessProbe=READINESS))
    world.apply({**body, "kind": "StatefulSet", "spec": {**body["spec"], "serviceName": "db"}})
    world.advance(60)
    changed = deployment("db", container(image="registry.example/shop/app:2.0", readinessProbe=READINESS))
    world.apply({**changed, "kind": "StatefulSet", "spec": {**changed["spec"], "serviceName": "db"}})
    world.advance(120)
    deleted = messages(world, "SuccessfulDelete", "db")
    assert deleted == [f"Delete Pod db-{number} in StatefulSet db successful" for number in (2, 1, 0)]
    status = get(world, "statefulsets.apps", "db")["status"]
    assert status["currentRevision"] == status["updateRevision"]
    assert status["updatedReplicas"] == 3


def test_a_daemon_set_follows_nodes_and_their_taints() -> None:
    world = small_world()
    body = deployment("agent")
    del body["spec"]["replicas"]
    world.apply({**body, "kind": "DaemonSet"})
    world.advance(30)
    assert get(world, "daemonsets.apps", "agent")["status"]["numberReady"] == 3
    node = world.registry.get("nodes", "", "node-2")
    taints = [{"key": "dedicated", "value": "db", "effect": "NoExecute"}]
    world.registry.update("nodes", "", "node-2", {**node, "spec": {**node["spec"], "taints": taints}})
    world.advance(60)
    assert {pod["spec"]["nodeName"] for pod in pods_of(world, "agent")} == {"node-1", "node-3"}
    assert get(world, "daemonsets.apps", "agent")["status"]["desiredNumberScheduled"] == 2


def job(name: str, command: str, **spec: object) -> Obj:
    pod = {"restartPolicy": "Never", "containers": [container(image="busybox:1.36", command=["sh", "-c", command])]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"template": {"spec": pod}, **spec},
    }


def test_a_job_completes_with_its_conditions_and_is_deleted_after_its_time_to_live() -> None:
    world = small_world()
    world.apply(job("once", "echo hello; sleep 5", completions=3, parallelism=2, ttlSecondsAfterFinished=60))
    world.advance(30)
    status = get(world, "jobs.batch", "once")["status"]
    assert status["succeeded"] == 3
    assert [item["type"] for item in status["conditions"]] == ["SuccessCriteriaMet", "Complete"]
    assert condition({"status": status}, "Complete")["message"] == "Reached expected number of succeeded pods"
    assert {pod["status"]["phase"] for pod in world.registry.iterate("pods")} == {"Succeeded"}
    world.advance(90)
    assert world.registry.find("jobs.batch", "default", "once") is None
    assert not list(world.registry.iterate("pods"))


def test_a_job_that_keeps_failing_reaches_its_backoff_limit() -> None:
    world = small_world()
    world.apply(job("broken", "echo no >&2; exit 3", backoffLimit=2))
    world.advance(120)
    status = get(world, "jobs.batch", "broken")["status"]
    assert status["failed"] == 3
    failed = condition({"status": status}, "Failed")
    assert (failed["reason"], failed["message"]) == (
        "BackoffLimitExceeded",
        "Job has reached the specified backoff limit",
    )


def cron_job(name: str, **spec: object) -> Obj:
    template = {"spec": job("x", "sleep 90")["spec"]}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"schedule": "*/5 * * * *", "jobTemplate": template, **spec},
    }


def test_a_cron_job_starts_on_schedule_and_keeps_its_history_short() -> None:
    world = small_world()
    world.apply(cron_job("report", successfulJobsHistoryLimit=2))
    world.advance(1900)
    names = [item["metadata"]["name"] for item in world.registry.iterate("jobs.batch")]
    minutes = int(world.clock.now().timestamp()) // 60 // 5 * 5
    assert sorted(names) == [f"report-{minutes - 5}", f"report-{minutes}"]
    assert get(world, "cronjobs.batch", "report")["status"]["lastScheduleTime"] == "2026-03-02T09:30:00Z"


def test_a_cron_job_that_forbids_concurrency_waits_for_the_running_one() -> None:
    world = small_world()
    body = cron_job("slow", schedule="* * * * *", concurrencyPolicy="Forbid")
    world.apply(body)
    world.advance(130)
    assert len(list(world.registry.iterate("jobs.batch"))) == 1
    assert messages(world, "JobAlreadyActive")


def test_a_suspended_cron_job_starts_nothing() -> None:
    world = small_world()
    world.apply(cron_job("report", suspend=True))
    world.advance(1200)
    assert not list(world.registry.iterate("jobs.batch"))


def autoscaler(name: str, low: int, high: int, percent: int = 50) -> Obj:
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}},
    }
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"scaleTargetRef": target, "minReplicas": low, "maxReplicas": high, "metrics": [metric]},
    }


def test_an_autoscaler_follows_the_load_up_and_after_its_window_down() -> None:
    world = small_world()
    busy = {"traffic": {"rps": 100, "swing": 0, "noise": 0}, "cpu": {"base_millicores": 0, "per_request_ms": 4}}
    world.apply(service("web"))
    world.apply(deployment("web", container(resources=resources(cpu="100m")), replicas=2, profile=json.dumps(busy)))
    world.apply(autoscaler("web", 2, 20))
    world.advance(600)
    # 100 requests x 4 ms = 400 millicores; at 50 % of 100m a pod that is 8 pods, within the tolerance of 10 %.
    assert 7 <= get(world, "deployments.apps", "web")["spec"]["replicas"] <= 9
    hpa = get(world, "horizontalpodautoscalers.autoscaling", "web")
    assert condition(hpa, "ScalingActive")["reason"] == "ValidMetricFound"
    assert 45 <= hpa["status"]["currentMetrics"][0]["resource"]["current"]["averageUtilization"] <= 58
    assert messages(world, "SuccessfulRescale")[0].endswith(
        "reason: cpu resource utilization (percentage of request) above target"
    )
    quiet = {**busy, "traffic": {"rps": 10, "swing": 0, "noise": 0}}
    before = get(world, "deployments.apps", "web")["spec"]["replicas"]
    changed = deployment("web", container(resources=resources(cpu="100m")), replicas=before, profile=json.dumps(quiet))
    world.apply(changed)
    world.advance(120)
    assert get(world, "deployments.apps", "web")["spec"]["replicas"] == before
    world.advance(600)
    assert get(world, "deployments.apps", "web")["spec"]["replicas"] == 2


def test_an_autoscaler_without_cpu_requests_says_which_container_lacks_them() -> None:
    world = small_world()
    world.apply(deployment("web"))
    world.apply(autoscaler("web", 1, 5))
    world.advance(60)
    active = condition(get(world, "horizontalpodautoscalers.autoscaling", "web"), "ScalingActive")
    assert (active["status"], active["reason"]) == ("False", "FailedGetResourceMetric")
    assert "missing request for cpu in container app of Pod web-" in active["message"]


def test_a_node_that_falls_silent_loses_its_pods_after_their_toleration() -> None:
    world = small_world()
    world.apply(deployment("web", replicas=3))
    world.advance(30)
    world.heartbeats.set_power("node-1", up=False)
    world.advance(60)
    node = world.registry.get("nodes", "", "node-1")
    ready = condition(node, "Ready")
    assert (ready["status"], ready["reason"]) == ("Unknown", "NodeStatusUnknown")
    assert {(taint["key"], taint["effect"]) for taint in node["spec"]["taints"]} == {
        ("node.kubernetes.io/unreachable", "NoSchedule"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
    }
    assert len(ready_pods(world, "web")) == 2
    world.advance(330)
    assert len(ready_pods(world, "web")) == 3
    stuck = [pod for pod in pods_of(world, "web") if "deletionTimestamp" in pod["metadata"]]
    assert [pod["spec"]["nodeName"] for pod in stuck] == ["node-1"]
    world.heartbeats.set_power("node-1", up=True)
    world.advance(60)
    assert "taints" not in world.registry.get("nodes", "", "node-1")["spec"]
    assert len(pods_of(world, "web")) == 3


def test_a_budget_counts_what_may_be_evicted() -> None:
    world = small_world()
    world.apply(deployment("web", replicas=3))
    budget = {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}
    meta = {"name": "web", "namespace": "default"}
    world.apply({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta, "spec": budget})
    world.advance(30)
    status = get(world, "poddisruptionbudgets.policy", "web")["status"]
    assert (status["disruptionsAllowed"], status["currentHealthy"], status["desiredHealthy"]) == (1, 3, 2)
    assert condition({"status": status}, "DisruptionAllowed")["reason"] == "SufficientPods"
    victim = pods_of(world, "web")[0]["metadata"]["name"]
    world.registry.delete("pods", "default", victim)
    world.settle()
    assert get(world, "poddisruptionbudgets.policy", "web")["status"]["disruptionsAllowed"] == 0
    world.advance(30)
    assert get(world, "poddisruptionbudgets.policy", "web")["status"]["disruptionsAllowed"] == 1


def test_a_claim_of_an_unknown_storage_class_stays_pending_and_its_pod_too() -> None:
    world = small_world()
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}
    meta = {"name": "data", "namespace": "default"}
    world.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec})
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    world.apply(deployment("db", replicas=1, pod={"volumes": volumes}))
    world.advance(60)
    assert get(world, "persistentvolumeclaims", "data")["status"]["phase"] == "Pending"
    assert 'storageclass.storage.k8s.io "fast" not found' in messages(world, "ProvisioningFailed")
    unbound = "pod has unbound immediate PersistentVolumeClaims"
    assert unbound in condition(pods_of(world, "db")[0], "PodScheduled")["message"]


def test_deleting_a_deployment_leaves_nothing_behind() -> None:
    world = small_world()
    world.apply(deployment("web"))
    world.advance(30)
    world.registry.delete("deployments.apps", "default", "web")
    world.advance(60)
    assert not pods_of(world, "web")
    assert not list(world.registry.iterate("replicasets.apps"))


def test_a_deleted_namespace_takes_everything_with_it() -> None:
    world = small_world()
    world.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    for body in (deployment("web", profile='{"stop_seconds": 5}'), service("web")):
        world.apply({**body, "metadata": {**body["metadata"], "namespace": "shop"}})
    world.advance(30)
    assert len(ready_pods(world, "web", "shop")) == 3
    world.registry.delete("namespaces", "", "shop")
    world.advance(3)
    assert world.registry.get("namespaces", "", "shop")["status"]["phase"] == "Terminating"
    world.advance(60)
    assert world.registry.find("namespaces", "", "shop") is None
    assert not pods_of(world, "web", "shop")


def test_pods_stop_gracefully_within_their_grace() -> None:
    world = small_world()
    world.apply(deployment("web", replicas=1, profile='{"stop_seconds": 12}'))
    world.advance(30)
    name = pods_of(world, "web")[0]["metadata"]["name"]
    world.registry.delete("pods", "default", name)
    world.advance(11)
    assert world.registry.find("pods", "default", name) is not None
    world.advance(2)
    assert world.registry.find("pods", "default", name) is None
    assert "Stopping container app" in messages(world, "Killing", name)


def test_events_older_than_an_hour_are_gone() -> None:
    world = small_world()
    world.apply(deployment("web", replicas=1))
    world.advance(30)
    assert events(world, "Scheduled")
    world.advance(3700)
    assert not events(world, "Scheduled")


def history(seed: int) -> str:
    world = small_world(seed=seed)
    world.apply(service("web"))
    world.apply(deployment("web", container(readinessProbe=READINESS, resources=resources())))
    world.apply(deployment("crash", replicas=2, profile='{"requires_env": ["TOKEN"]}'))
    world.apply(cron_job("report"))
    world.apply(autoscaler("web", 2, 6))
    world.advance(900)
    set_image(world, "web", "registry.example/shop/app:2.0")
    world.advance(300)
    everything = {
        resource: list(world.registry.iterate(resource))
        for resource in (
            "pods",
            "replicasets.apps",
            "deployments.apps",
            "events",
            "jobs.batch",
            "endpointslices.discovery.k8s.io",
        )
    }
    return json.dumps(everything)


def test_one_seed_gives_one_history_byte_for_byte() -> None:
    assert history(11) == history(11)


def test_another_seed_gives_other_names() -> None:
    assert history(11) != history(12)


def test_a_fault_holds_until_it_is_cleared() -> None:
    world = small_world()
    world.apply(deployment("web", container(readinessProbe=READINESS)))
    world.advance(60)
    fault = world.faults.inject(FaultSpec("crash-loop", namespace="default", workload="web", exit_code=42))
    world.advance(60)
    assert {status_of(pod)["lastState"]["terminated"]["exitCode"] for pod in pods_of(world, "web")} == {42}
    world.faults.clear(fault.id)
    world.advance(120)
    assert len(ready_pods(world, "web")) == 3


@pytest.mark.parametrize("missing", ["web-1", "nosuch"])
def test_a_fault_on_nobody_is_refused(missing: str) -> None:
    world = small_world()
    with pytest.raises(FaultError, match="no pod in default matches"):
        world.faults.inject(FaultSpec("unready", namespace="default", workload=missing))


def test_a_conflict_in_one_controller_is_retried_not_lost() -> None:
    world = small_world()
    world.apply(deployment("web", replicas=1))
    stale = {**get(world, "deployments.apps", "web")}
    stale["metadata"] = {**stale["metadata"], "resourceVersion": "1"}
    with pytest.raises(ApiError):
        world.registry.update("deployments.apps", "default", "web", stale)
    world.advance(30)
    assert len(ready_pods(world, "web")) == 1


def test_under_memory_pressure_the_pod_furthest_above_its_request_is_evicted_and_replaced_elsewhere() -> None:
    world = small_world()
    big = json.dumps({"memory": {"base": "900Mi"}})
    world.apply(deployment("big", container(resources=resources()), replicas=3, profile=big))
    world.apply(deployment("small", container(resources=resources(memory="1Gi")), replicas=3))
    world.advance(60)
    fault = world.faults.inject(FaultSpec("memory-pressure", node="node-1"))
    world.advance(45)
    node = world.registry.get("nodes", "", "node-1")
    assert condition(node, "MemoryPressure")["reason"] == "KubeletHasInsufficientMemory"
    assert node["spec"]["taints"] == [{"key": "node.kubernetes.io/memory-pressure", "effect": "NoSchedule"}]
    evicted = [pod for pod in world.registry.iterate("pods") if pod["status"].get("reason") == "Evicted"]
    assert [(pod["metadata"]["labels"]["app"], pod["status"]["phase"]) for pod in evicted] == [("big", "Failed")]
    assert evicted[0]["status"]["message"].startswith("The node was low on resource: memory.")
    alive = ready_pods(world, "big")
    assert len(alive) == 3
    assert "node-1" not in {pod["spec"]["nodeName"] for pod in alive}
    world.faults.clear(fault.id)
    world.advance(15)
    assert "taints" not in world.registry.get("nodes", "", "node-1")["spec"]


def test_a_limit_raised_in_place_stops_the_oom_kills_without_a_new_pod() -> None:
    world = small_world()
    profile = json.dumps({"memory": {"base": "150Mi", "leak_per_hour": "600Mi"}})
    world.apply(deployment("web", container(resources=resources(limit="256Mi")), replicas=1, profile=profile))
    world.advance(300)
    pod = pods_of(world, "web")[0]
    limits = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "4Gi"}}
    spec = {**pod["spec"], "containers": [{**pod["spec"]["containers"][0], "resources": limits}]}
    name = pod["metadata"]["name"]
    world.registry.update("pods", "default", name, {**pod, "spec": spec}, subresource="resize")
    world.advance(3600)
    status = status_of(world.registry.get("pods", "default", name))
    assert status["restartCount"] == 0
    assert status["resources"]["limits"] == {"memory": "4Gi"}


def test_history_does_not_depend_on_the_interpreters_hash_seed() -> None:
    script = (
        "import hashlib, json\n"
        "from datetime import UTC, datetime\n"
        "from opsapi.playground import demo\n"
        "from opsapi.playground.world import World\n"
        "world = World(datetime(2026, 3, 2, 9, tzinfo=UTC), 5)\n"
        "demo.build(world)\n"
        "world.heartbeats.set_power('worker-2', False)\n"
        "world.advance(600)\n"
        "kinds = sorted({kind.resource for kind in world.objects.kinds.storage_kinds()})\n"
        "everything = [list(world.registry.iterate(kind)) for kind in kinds]\n"
        "print(hashlib.sha256(json.dumps(everything).encode()).hexdigest())\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
