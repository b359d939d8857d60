"""The parts of a pod template that its security depends on, each with its JSONPath in the object that holds it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec


class _Json(msgspec.Struct, frozen=True, rename="camel"):
    """Fields that are not named here are passed over."""


class TypedProfile(_Json, frozen=True):
    """Of seccomp and AppArmor."""

    type: str | None = None


class SeLinuxOptions(_Json, frozen=True):
    type: str = ""
    user: str = ""
    role: str = ""


class WindowsOptions(_Json, frozen=True):
    host_process: bool | None = None


class Capabilities(_Json, frozen=True):
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class Sysctl(_Json, frozen=True):
    name: str
    value: str = ""


class _Context(_Json, frozen=True):
    """What pods and containers share."""

    run_as_non_root: bool | None = None
    run_as_user: int | None = None
    seccomp_profile: TypedProfile | None = None
    app_armor_profile: TypedProfile | None = None
    se_linux_options: SeLinuxOptions | None = None
    windows_options: WindowsOptions | None = None


class PodContext(_Context, frozen=True):
    sysctls: tuple[Sysctl, ...] = ()


class ContainerContext(_Context, frozen=True):
    privileged: bool | None = None
    allow_privilege_escalation: bool | None = None
    capabilities: Capabilities | None = None
    proc_mount: str | None = None


class Port(_Json, frozen=True):
    host_port: int = 0


class HostField(_Json, frozen=True):
    host: str = ""


class Handler(_Json, frozen=True):
    http_get: HostField | None = None
    tcp_socket: HostField | None = None


class Lifecycle(_Json, frozen=True):
    post_start: Handler | None = None
    pre_stop: Handler | None = None


class Env(_Json, frozen=True):
    name: str
    value: str = ""


class Container(_Json, frozen=True):
    name: str
    image: str = ""
    security_context: ContainerContext | None = None
    ports: tuple[Port, ...] = ()
    liveness_probe: Handler | None = None
    readiness_probe: Handler | None = None
    startup_probe: Handler | None = None
    lifecycle: Lifecycle | None = None
    env: tuple[Env, ...] = ()


class Os(_Json, frozen=True):
    name: str = ""


class PodSpec(_Json, frozen=True):
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    ephemeral_containers: tuple[Container, ...] = ()
    volumes: tuple[dict[str, Any], ...] = ()
    security_context: PodContext | None = None
    host_network: bool = False
    host_pid: bool = msgspec.field(default=False, name="hostPID")
    host_ipc: bool = msgspec.field(default=False, name="hostIPC")
    os: Os | None = None
    service_account_name: str = ""
    automount_service_account_token: bool | None = None


class TemplateMeta(_Json, frozen=True):
    annotations: dict[str, str] = {}


class Template(_Json, frozen=True):
    metadata: TemplateMeta = TemplateMeta()
    spec: PodSpec = PodSpec()


@dataclass(frozen=True, slots=True)
class PlacedContainer:
    path: str
    held: Container
    ephemeral: bool = False

    @property
    def context(self) -> ContainerContext:
        return self.held.security_context or _NO_CONTEXT

    def at(self, field: str) -> str:
        return f"{self.path}.{field}"

    def in_context(self, field: str) -> str:
        return f"{self.path}.securityContext.{field}"


_NO_CONTEXT = ContainerContext()
_NO_POD_CONTEXT = PodContext()
_LISTS = ("containers", "init_containers", "ephemeral_containers")
_WIRE_NAMES = {"containers": "containers", "init_containers": "initContainers"}


@dataclass(frozen=True, slots=True)
class PlacedPod:
    """A pod template at its place: `path` is the JSONPath of its spec, `$.spec.template.spec` in a Deployment."""

    path: str
    spec: PodSpec
    annotations: dict[str, str]

    @property
    def context(self) -> PodContext:
        return self.spec.security_context or _NO_POD_CONTEXT

    @property
    def windows(self) -> bool:
        return self.spec.os is not None and self.spec.os.name == "windows"

    @property
    def containers(self) -> Iterator[PlacedContainer]:
        """Init and ephemeral ones too."""
        for name in _LISTS:
            wire = _WIRE_NAMES.get(name, "ephemeralContainers")
            for place, held in enumerate(getattr(self.spec, name)):
                yield PlacedContainer(f"{self.path}.{wire}[{place}]", held, name == "ephemeral_containers")

    def at(self, field: str) -> str:
        return f"{self.path}.{field}"

    def in_context(self, field: str) -> str:
        return f"{self.path}.securityContext.{field}"

    def annotation(self, key: str) -> str:
        return f"{self.path.removesuffix('.spec')}.metadata.annotations['{key}']"


def place(path: str, template: object) -> PlacedPod:
    """`template` is a pod or a pod template as JSON, `path` its JSONPath (`$` for a pod).

    Raises msgspec.ValidationError for what is no pod.
    """
    held = msgspec.convert(template, Template)
    return PlacedPod(f"{path}.spec", held.spec, held.metadata.annotations)
