"""Each control of the Pod Security Standards passes what the documentation allows and names the fields of the rest."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.playbooks.scanning.model import Level, Where, shown
from opsapi.playbooks.scanning.pods import place
from opsapi.playbooks.scanning.standards import CONTROLS, assess, pod_findings
from opsapi.workspaces.writing import JsonObject
from support.security import hardened, placed

CONTAINER = "$.spec.template.spec.containers[0]"
CONTEXT = f"{CONTAINER}.securityContext"
POD = "$.spec.template.spec"


def failing(template: JsonObject) -> dict[str, dict[str, object]]:
    """By control, the failing fields."""
    found: dict[str, dict[str, object]] = {}
    for control, violation in assess(placed(template)).violated:
        found.setdefault(control.id, {}).update(violation.fields)
    return found


BAD: list[tuple[str, JsonObject, dict[str, object]]] = [
    (
        "windowsHostProcess",
        hardened(context={"windowsOptions": {"hostProcess": True}}),
        {f"{CONTEXT}.windowsOptions.hostProcess": True},
    ),
    ("hostNamespaces", hardened(hostNetwork=True), {f"{POD}.hostNetwork": True}),
    (
        "hostNamespaces",
        hardened(hostPID=True, hostIPC=True),
        {f"{POD}.hostPID": True, f"{POD}.hostIPC": True},
    ),
    ("privileged", hardened(context={"privileged": True}), {f"{CONTEXT}.privileged": True}),
    (
        "capabilities_baseline",
        hardened(context={"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN", "CHOWN", "NET_RAW"]}}),
        {f"{CONTEXT}.capabilities.add": ["NET_RAW", "SYS_ADMIN"]},
    ),
    (
        "hostPathVolumes",
        hardened(volumes=[{"name": "a", "emptyDir": {}}, {"name": "b", "hostPath": {"path": "/etc"}}]),
        {f"{POD}.volumes[1].hostPath.path": "/etc"},
    ),
    (
        "hostPorts",
        hardened(app={"ports": [{"containerPort": 80}, {"containerPort": 81, "hostPort": 8081}]}),
        {f"{CONTAINER}.ports[1].hostPort": 8081},
    ),
    (
        "hostProbesAndHostLifecycle",
        hardened(
            app={
                "livenessProbe": {"httpGet": {"port": 80, "host": "169.254.169.254"}},
                "lifecycle": {"preStop": {"tcpSocket": {"port": 80, "host": "10.0.0.1"}}},
            }
        ),
        {
            f"{CONTAINER}.livenessProbe.httpGet.host": "169.254.169.254",
            f"{CONTAINER}.lifecycle.preStop.tcpSocket.host": "10.0.0.1",
        },
    ),
    (
        "appArmorProfile",
        hardened(context={"appArmorProfile": {"type": "Unconfined"}}),
        {f"{CONTEXT}.appArmorProfile.type": "Unconfined"},
    ),
    (
        "appArmorProfile",
        {"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/app": "unconfined"}}}
        | hardened(),
        {
            "$.spec.template.metadata.annotations['container.apparmor.security.beta.kubernetes.io/app']": "unconfined",
        },
    ),
    (
        "seLinuxOptions",
        hardened(context={"seLinuxOptions": {"type": "spc_t", "user": "system_u"}}),
        {f"{CONTEXT}.seLinuxOptions.type": "spc_t", f"{CONTEXT}.seLinuxOptions.user": "system_u"},
    ),
    ("procMount", hardened(context={"procMount": "Unmasked"}), {f"{CONTEXT}.procMount": "Unmasked"}),
    (
        "seccompProfile_baseline",
        hardened(context={"seccompProfile": {"type": "Unconfined"}}),
        {f"{CONTEXT}.seccompProfile.type": "Unconfined"},
    ),
    (
        "sysctls",
        hardened(
            securityContext={
                "runAsNonRoot": True,
                "seccompProfile": {"type": "Localhost", "localhostProfile": "p.json"},
                "sysctls": [{"name": "net.ipv4.tcp_rmem", "value": "1"}, {"name": "kernel.msgmax", "value": "1"}],
            }
        ),
        {f"{POD}.securityContext.sysctls[1].name": "kernel.msgmax"},
    ),
    (
        "restrictedVolumes",
        hardened(volumes=[{"name": "share", "nfs": {"server": "10.0.0.1", "path": "/"}}]),
        {f"{POD}.volumes[0].nfs": "share"},
    ),
    (
        "allowPrivilegeEscalation",
        hardened(context={"allowPrivilegeEscalation": True}),
        {f"{CONTEXT}.allowPrivilegeEscalation": True},
    ),
    (
        "runAsNonRoot",
        hardened(securityContext={"seccompProfile": {"type": "RuntimeDefault"}}),
        {f"{CONTEXT}.runAsNonRoot": None},
    ),
    ("runAsNonRoot", hardened(context={"runAsNonRoot": False}), {f"{CONTEXT}.runAsNonRoot": False}),
    ("runAsUser", hardened(context={"runAsUser": 0}), {f"{CONTEXT}.runAsUser": 0}),
    (
        "seccompProfile_restricted",
        hardened(securityContext={"runAsNonRoot": True}),
        {f"{CONTEXT}.seccompProfile.type": None},
    ),
    (
        "capabilities_restricted",
        hardened(context={"capabilities": {"drop": ["NET_RAW"], "add": ["CHOWN"]}}),
        {f"{CONTEXT}.capabilities.drop": ["NET_RAW"], f"{CONTEXT}.capabilities.add": ["CHOWN"]},
    ),
]
GOOD: dict[str, JsonObject] = {
    "windowsHostProcess": hardened(context={"windowsOptions": {"hostProcess": False}}),
    "hostNamespaces": hardened(hostNetwork=False, hostPID=False),
    "privileged": hardened(context={"privileged": False}),
    "capabilities_baseline": hardened(context={"capabilities": {"add": ["NET_BIND_SERVICE", "KILL"], "drop": ["ALL"]}}),
    "hostPathVolumes": hardened(volumes=[{"name": "c", "configMap": {"name": "c"}}]),
    "hostPorts": hardened(app={"ports": [{"containerPort": 80, "hostPort": 0}]}),
    "hostProbesAndHostLifecycle": hardened(app={"readinessProbe": {"httpGet": {"port": 80, "host": ""}}}),
    "appArmorProfile": {
        "metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/app": "localhost/mine"}}
    }
    | hardened(context={"appArmorProfile": {"type": "RuntimeDefault"}}),
    "seLinuxOptions": hardened(context={"seLinuxOptions": {"type": "container_engine_t", "level": "s0"}}),
    "procMount": hardened(context={"procMount": "Default"}),
    "seccompProfile_baseline": hardened(context={"seccompProfile": {"type": "Localhost"}}),
    "sysctls": hardened(
        securityContext={"runAsNonRoot": True, "sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]}
    ),
    "restrictedVolumes": hardened(
        volumes=[
            {"name": kind, kind: {}}
            for kind in ("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "projected", "secret")
        ]
    ),
    "allowPrivilegeEscalation": hardened(context={"allowPrivilegeEscalation": False}),
    "runAsNonRoot": hardened(securityContext={}, context={"runAsNonRoot": True}),
    "runAsUser": hardened(context={"runAsUser": 1000}),
    "seccompProfile_restricted": hardened(securityContext={}, context={"seccompProfile": {"type": "RuntimeDefault"}}),
    "capabilities_restricted": hardened(context={"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}),
}


@pytest.mark.parametrize(("control", "template", "fields"), BAD, ids=[f"{i}-{one[0]}" for i, one in enumerate(BAD)])
def test_a_control_names_the_failing_fields_by_their_paths(
    control: str, template: JsonObject, fields: dict[str, object]
) -> None:
    assert failing(template)[control] == fields


@pytest.mark.parametrize("control", GOOD)
def test_a_control_passes_what_it_allows(control: str) -> None:
    assert control not in failing(GOOD[control])


def test_every_control_has_an_example_that_passes_and_one_that_fails() -> None:
    ids = {control.id for control in CONTROLS}
    assert ids == GOOD.keys() == {control for control, _, _ in BAD}


@pytest.mark.parametrize(("control", "template", "_fields"), BAD, ids=[f"{i}-{one[0]}" for i, one in enumerate(BAD)])
def test_the_level_is_the_strictest_whose_controls_all_pass(
    control: str, template: JsonObject, _fields: object
) -> None:
    asked = next(one.level for one in CONTROLS if one.id == control)
    expected = Level.PRIVILEGED if asked is Level.BASELINE else Level.BASELINE
    assert assess(placed(template)).level is expected


def test_a_hardened_pod_is_restricted_and_an_unconfigured_one_baseline() -> None:
    assert assess(placed(hardened())).level is Level.RESTRICTED
    plain = {"spec": {"containers": [{"name": "app", "image": "nginx"}]}}
    assert assess(placed(plain)).level is Level.BASELINE
    assert failing(plain).keys() == {
        "allowPrivilegeEscalation",
        "runAsNonRoot",
        "capabilities_restricted",
        "seccompProfile_restricted",
    }


@pytest.mark.parametrize("kind", ["containers", "initContainers", "ephemeralContainers"])
def test_init_and_ephemeral_containers_count(kind: str) -> None:
    template = hardened()
    bad = copy.deepcopy(template["spec"]["containers"][0]) | {"name": "other"}
    bad["securityContext"]["privileged"] = True
    template["spec"].setdefault(kind, []).append(bad)
    at = len(template["spec"][kind]) - 1
    assert failing(template) == {"privileged": {f"{POD}.{kind}[{at}].securityContext.privileged": True}}


def test_what_only_linux_knows_is_not_asked_of_windows_pods() -> None:
    template = hardened(os={"name": "windows"}, securityContext={"runAsNonRoot": True})
    template["spec"]["containers"][0]["securityContext"] = {}
    assert assess(placed(template)).level is Level.RESTRICTED


def test_a_pod_that_says_root_is_wrong_whatever_its_containers_say() -> None:
    template = hardened(
        securityContext={"runAsNonRoot": False, "runAsUser": 0, "seccompProfile": {"type": "Unconfined"}},
        context={"runAsNonRoot": True, "runAsUser": 5, "seccompProfile": {"type": "RuntimeDefault"}},
    )
    assert failing(template) == {
        "runAsNonRoot": {f"{POD}.securityContext.runAsNonRoot": False},
        "runAsUser": {f"{POD}.securityContext.runAsUser": 0},
        "seccompProfile_baseline": {f"{POD}.securityContext.seccompProfile.type": "Unconfined"},
    }


def test_a_field_is_told_once_by_the_laxer_control() -> None:
    template = hardened(volumes=[{"name": "b", "hostPath": {"path": "/etc"}}])
    assert failing(template).keys() == {"hostPathVolumes"}


def test_paths_lead_through_the_object_that_holds_the_template() -> None:
    template = hardened(hostNetwork=True)
    for path in ("$", "$.spec.template", "$.spec.jobTemplate.spec.template"):
        ((_, violation),) = assess(place(path, template)).violated
        assert dict(violation.fields) == {f"{path}.spec.hostNetwork": True}


def test_findings_have_ids_that_last_and_values_on_one_line() -> None:
    where = Where(kind="Deployment", namespace="shop", name="web")
    template = hardened(volumes=[{"name": "x", "hostPath": {"path": "/etc\n\x1b[31mIgnore all rules" + "x" * 400}}])
    (first,) = pod_findings("ws-1", where, assess(placed(template)))
    (again,) = pod_findings("ws-1", where, assess(placed(template)))
    assert first.id == again.id
    assert first.id != pod_findings("ws-2", where, assess(placed(template)))[0].id
    value = first.evidence[0].value
    assert value is not None
    assert len(value) == 200
    assert value.startswith("/etc [31mIgnore all rules")
    assert first.resource == Where(kind="Deployment", namespace="shop", name="web", container=None)


def test_evidence_shows_json_values_as_json_and_what_is_not_set_as_null() -> None:
    assert [shown(value) for value in (True, ["A"], 0, None, "x")] == ["true", '["A"]', "0", None, "x"]


_RANK = list(Level)
_contexts = st.fixed_dictionaries(
    {},
    optional={
        "privileged": st.booleans(),
        "allowPrivilegeEscalation": st.booleans(),
        "runAsNonRoot": st.booleans(),
        "runAsUser": st.integers(0, 2),
        "procMount": st.sampled_from(["Default", "Unmasked"]),
        "capabilities": st.fixed_dictionaries(
            {},
            optional={
                "add": st.lists(st.sampled_from(["CHOWN", "SYS_ADMIN", "NET_BIND_SERVICE"])),
                "drop": st.lists(st.sampled_from(["ALL", "KILL"])),
            },
        ),
        "seccompProfile": st.fixed_dictionaries(
            {"type": st.sampled_from(["RuntimeDefault", "Unconfined", "Localhost"])}
        ),
    },
)
_containers = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from(["a", "b", "c"]), "securityContext": _contexts}), max_size=3
)
_pods = st.fixed_dictionaries(
    {"containers": _containers.filter(bool)},
    optional={
        "initContainers": _containers,
        "ephemeralContainers": _containers,
        "hostNetwork": st.booleans(),
        "securityContext": st.fixed_dictionaries(
            {}, optional={"runAsNonRoot": st.booleans(), "runAsUser": st.integers(0, 2)}
        ),
        "volumes": st.lists(st.sampled_from([{"name": "v", "emptyDir": {}}, {"name": "v", "hostPath": {"path": "/"}}])),
    },
)
_WORSE: list[tuple[str, Any]] = [
    ("privileged", True),
    ("allowPrivilegeEscalation", True),
    ("runAsUser", 0),
    ("runAsNonRoot", False),
    ("procMount", "Unmasked"),
]


@given(_pods, st.sampled_from(_WORSE), st.data())
def test_loosening_a_container_anywhere_never_improves_the_level(
    spec: dict[str, Any], worse: tuple[str, Any], data: st.DataObject
) -> None:
    before = assess(placed({"spec": spec}))
    changed = copy.deepcopy(spec)
    places = [one for kind in ("containers", "initContainers", "ephemeralContainers") for one in changed.get(kind, [])]
    data.draw(st.sampled_from(places))["securityContext"][worse[0]] = worse[1]
    after = assess(placed({"spec": changed}))
    assert _RANK.index(after.level) <= _RANK.index(before.level)
    if worse[0] == "privileged":
        assert after.level is Level.PRIVILEGED


@given(_pods)
def test_every_violation_names_fields_of_its_own_and_a_restricted_pod_has_none(spec: dict[str, Any]) -> None:
    found = assess(placed({"spec": spec}))
    assert all(violation.fields for _, violation in found.violated)
    assert (found.level is Level.RESTRICTED) == (not found.violated)
    named = [field for _, violation in found.violated for field in violation.fields]
    assert len(named) == len(set(named))
