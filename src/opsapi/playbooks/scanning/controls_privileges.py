"""Pod Security Standards: what the processes of a container may do and who they are."""

from collections.abc import Iterator

from opsapi.playbooks.scanning.controls import Control, Violation, violations
from opsapi.playbooks.scanning.model import Level, Severity
from opsapi.playbooks.scanning.pods import Capabilities, PlacedPod

BASELINE_CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    }
)
RESTRICTED_CAPABILITIES = frozenset({"NET_BIND_SERVICE"})
_NO_CAPABILITIES = Capabilities()


def _privileged(pod: PlacedPod) -> Iterator[Violation]:
    for one in pod.containers:
        if one.context.privileged:
            yield Violation(one.held.name, {one.in_context("privileged"): True})


def _capabilities(pod: PlacedPod) -> Iterator[Violation]:
    for one in pod.containers:
        added = (one.context.capabilities or _NO_CAPABILITIES).add
        extra = sorted(set(added) - BASELINE_CAPABILITIES)
        if extra:
            yield Violation(one.held.name, {one.in_context("capabilities.add"): extra})


def _few_capabilities(pod: PlacedPod) -> Iterator[Violation]:
    if pod.windows:
        return
    for one in pod.containers:
        held = one.context.capabilities or _NO_CAPABILITIES
        fields: dict[str, object] = {}
        if "ALL" not in held.drop:
            fields[one.in_context("capabilities.drop")] = sorted(held.drop) or None
        extra = sorted(set(held.add) - RESTRICTED_CAPABILITIES)
        if extra:
            fields[one.in_context("capabilities.add")] = extra
        yield from violations(one.held.name, fields)


def _escalation(pod: PlacedPod) -> Iterator[Violation]:
    if pod.windows:
        return
    for one in pod.containers:
        allowed = one.context.allow_privilege_escalation
        if allowed is not False:
            yield Violation(one.held.name, {one.in_context("allowPrivilegeEscalation"): allowed})


def _non_root(pod: PlacedPod) -> Iterator[Violation]:
    """A container may leave it to the pod; a pod that says false is wrong whatever its containers say."""
    of_pod = pod.context.run_as_non_root
    if of_pod is False:
        yield Violation(None, {pod.in_context("runAsNonRoot"): False})
    for one in pod.containers:
        said = one.context.run_as_non_root
        if said is False or (said is None and of_pod is None):
            yield Violation(one.held.name, {one.in_context("runAsNonRoot"): said})


def _user(pod: PlacedPod) -> Iterator[Violation]:
    if pod.context.run_as_user == 0:
        yield Violation(None, {pod.in_context("runAsUser"): 0})
    for one in pod.containers:
        if one.context.run_as_user == 0:
            yield Violation(one.held.name, {one.in_context("runAsUser"): 0})


PRIVILEGE_CONTROLS = (
    Control(
        "privileged",
        "Privileged Containers",
        Level.BASELINE,
        Severity.CRITICAL,
        "Take privileged away, and add the single capabilities that the container really needs.",
        _privileged,
    ),
    Control(
        "capabilities_baseline",
        "Capabilities",
        Level.BASELINE,
        Severity.HIGH,
        "Take the named capabilities out of capabilities.add.",
        _capabilities,
    ),
    Control(
        "allowPrivilegeEscalation",
        "Privilege Escalation",
        Level.RESTRICTED,
        Severity.MEDIUM,
        "Set allowPrivilegeEscalation: false.",
        _escalation,
    ),
    Control(
        "runAsNonRoot",
        "Running as Non-root",
        Level.RESTRICTED,
        Severity.MEDIUM,
        "Set runAsNonRoot: true for the pod, and use an image whose user is not root.",
        _non_root,
    ),
    Control(
        "runAsUser",
        "Running as Non-root user",
        Level.RESTRICTED,
        Severity.MEDIUM,
        "Set runAsUser to a user other than 0, or leave it to the image.",
        _user,
    ),
    Control(
        "capabilities_restricted",
        "Capabilities",
        Level.RESTRICTED,
        Severity.LOW,
        'Set capabilities.drop: ["ALL"] and add at most NET_BIND_SERVICE.',
        _few_capabilities,
    ),
)
