"""Pod Security Standards: what confines a container's processes in the kernel."""

from collections.abc import Iterable, Iterator

from opsapi.playbooks.scanning.controls import Control, Violation, violations
from opsapi.playbooks.scanning.model import Level, Severity
from opsapi.playbooks.scanning.pods import PlacedPod, SeLinuxOptions, TypedProfile

SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
SELINUX_TYPES = frozenset({"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"})
CONFINED = frozenset({"RuntimeDefault", "Localhost"})
APPARMOR_ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"


def _unconfined(profile: TypedProfile | None) -> bool:
    return profile is not None and profile.type is not None and profile.type not in CONFINED


def _apparmor(pod: PlacedPod) -> Iterator[Violation]:
    """The fields, and the annotations that came before them."""
    profile = pod.context.app_armor_profile
    if profile is not None and _unconfined(profile):
        yield Violation(None, {pod.in_context("appArmorProfile.type"): profile.type})
    for key, value in sorted(pod.annotations.items()):
        if not key.startswith(APPARMOR_ANNOTATION):
            continue
        if value not in ("", "runtime/default") and not value.startswith("localhost/"):
            yield Violation(key.removeprefix(APPARMOR_ANNOTATION), {pod.annotation(key): value})
    for one in pod.containers:
        profile = one.context.app_armor_profile
        if profile is not None and _unconfined(profile):
            yield Violation(one.held.name, {one.in_context("appArmorProfile.type"): profile.type})


def _forbidden(options: SeLinuxOptions | None) -> dict[str, str]:
    if options is None:
        return {}
    wrong = {} if options.type in SELINUX_TYPES else {"type": options.type}
    return wrong | {name: value for name, value in (("user", options.user), ("role", options.role)) if value}


def _selinux(pod: PlacedPod) -> Iterator[Violation]:
    of_pod = _forbidden(pod.context.se_linux_options)
    yield from violations(None, {pod.in_context(f"seLinuxOptions.{name}"): value for name, value in of_pod.items()})
    for one in pod.containers:
        wrong = _forbidden(one.context.se_linux_options)
        fields = {one.in_context(f"seLinuxOptions.{name}"): value for name, value in wrong.items()}
        yield from violations(one.held.name, fields)


def _proc_mount(pod: PlacedPod) -> Iterator[Violation]:
    for one in pod.containers:
        if one.context.proc_mount not in (None, "Default"):
            yield Violation(one.held.name, {one.in_context("procMount"): one.context.proc_mount})


def _seccomp(pod: PlacedPod) -> Iterator[Violation]:
    profile = pod.context.seccomp_profile
    if profile is not None and _unconfined(profile):
        yield Violation(None, {pod.in_context("seccompProfile.type"): profile.type})
    for one in pod.containers:
        profile = one.context.seccomp_profile
        if profile is not None and _unconfined(profile):
            yield Violation(one.held.name, {one.in_context("seccompProfile.type"): profile.type})


def _seccomp_set(pod: PlacedPod) -> Iterator[Violation]:
    """A container may leave it to the pod; somebody must say it."""
    if pod.windows:
        return
    of_pod = pod.context.seccomp_profile
    said = of_pod is not None and of_pod.type is not None
    if of_pod is not None and _unconfined(of_pod):
        yield Violation(None, {pod.in_context("seccompProfile.type"): of_pod.type})
    for one in pod.containers:
        profile = one.context.seccomp_profile
        kind = profile.type if profile is not None else None
        if _unconfined(profile) or (kind is None and not said):
            yield Violation(one.held.name, {one.in_context("seccompProfile.type"): kind})


def _sysctls(pod: PlacedPod) -> Iterable[Violation]:
    unsafe = {
        pod.in_context(f"sysctls[{place}].name"): sysctl.name
        for place, sysctl in enumerate(pod.context.sysctls)
        if sysctl.name not in SAFE_SYSCTLS
    }
    return violations(None, unsafe)


KERNEL_CONTROLS = (
    Control(
        "appArmorProfile",
        "AppArmor",
        Level.BASELINE,
        Severity.MEDIUM,
        "Use the AppArmor profile RuntimeDefault or Localhost.",
        _apparmor,
    ),
    Control(
        "seLinuxOptions",
        "SELinux",
        Level.BASELINE,
        Severity.MEDIUM,
        "Take user and role away from seLinuxOptions, and use a type for containers.",
        _selinux,
    ),
    Control(
        "procMount",
        "/proc Mount Type",
        Level.BASELINE,
        Severity.MEDIUM,
        "Take procMount away: the default masks parts of /proc.",
        _proc_mount,
    ),
    Control(
        "seccompProfile_baseline",
        "Seccomp",
        Level.BASELINE,
        Severity.MEDIUM,
        "Use the seccomp profile RuntimeDefault or Localhost in place of Unconfined.",
        _seccomp,
    ),
    Control(
        "sysctls",
        "Sysctls",
        Level.BASELINE,
        Severity.MEDIUM,
        "Take the unsafe sysctls away; what the node needs is set on the node.",
        _sysctls,
    ),
    Control(
        "seccompProfile_restricted",
        "Seccomp",
        Level.RESTRICTED,
        Severity.LOW,
        "Set seccompProfile.type: RuntimeDefault for the pod.",
        _seccomp_set,
    ),
)
