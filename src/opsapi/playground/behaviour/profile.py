"""Behaviour profiles: the JSON of the annotation `playground.opsapi.dev/profile` on a pod template.

It is a profile for the pod's first container, or `{"containers": {NAME: profile}}`, or the name of a built-in one.
"""

from functools import lru_cache
from typing import Literal

import msgspec

from opsapi.kit.quantity import whole

ANNOTATION = "playground.opsapi.dev/profile"

LogFormat = Literal["json", "logfmt", "access", "plain"]


class ProfileError(ValueError):
    """The annotation's text is no profile; `why` names the field."""

    def __init__(self, why: str) -> None:
        super().__init__(f"invalid {ANNOTATION}: {why}")
        self.why = why


class Traffic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Requests a second that arrive for the whole workload; ready pods share them."""

    rps: float = 0.0
    """The daily mean."""
    swing: float = 0.5
    """0: flat; 1: nothing at night and twice the mean at the peak."""
    peak_hour: float = 14.0
    """UTC."""
    noise: float = 0.08


class Cpu(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    base_millicores: float = 3.0
    per_request_ms: float = 2.0


class Memory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    base: str = "48Mi"
    per_rps: str = "128Ki"
    """On top, for each request a second that this pod serves."""
    leak_per_hour: str = "0"


class Latency(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    p50_ms: float = 18.0
    p99_ms: float = 140.0


class Exit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The container ends by itself `after_seconds` from its start, having written `logs` last."""

    after_seconds: float
    code: int = 1
    logs: tuple[str, ...] = ()
    reason: str = ""


class Health(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When probes succeed. With `every_seconds`, they fail for the last `for_seconds` of each such interval."""

    after_seconds: float = 0.5
    never: bool = False
    every_seconds: float = 0.0
    for_seconds: float = 0.0
    message: str = "HTTP probe failed with statuscode: 503"
    path: str = ""
    """Where set, HTTP probes of any other path get a 404."""


class Logs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: LogFormat = "json"
    component: str = ""
    per_request: float = 0.2
    """Lines a request."""
    most_per_second: int = 4
    idle_seconds: float = 30.0
    """A line each so often where no request comes."""
    messages: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    trace: tuple[str, ...] = ()
    """A stack trace, written below an error line now and then."""
    paths: tuple[str, ...] = ("/",)


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    traffic: Traffic = Traffic()
    cpu: Cpu = Cpu()
    memory: Memory = Memory()
    latency: Latency = Latency()
    error_rate: float = 0.001
    logs: Logs = Logs()
    exit: Exit | None = None
    readiness: Health = Health()
    liveness: Health = Health()
    requires_env: tuple[str, ...] = ()
    """Without these the process says so and exits with 1 within a second of its start."""
    depends_on: tuple[str, ...] = ()
    """Services (`name` or `name.namespace`) that each request calls: without ready endpoints, requests fail."""
    stop_seconds: float = 1.0
    """How long it takes to end after SIGTERM."""

    def __post_init__(self) -> None:
        for text in (self.memory.base, self.memory.per_rps, self.memory.leak_per_hour):
            whole(text)
        if not 0 <= self.error_rate <= 1:
            raise ValueError("error_rate is a share between 0 and 1")
        if not 0 <= self.traffic.swing <= 1:
            raise ValueError("traffic.swing is a share between 0 and 1")


class _PerContainer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    containers: dict[str, Profile]


@lru_cache(maxsize=2048)
def parse_profile(text: str) -> Profile | dict[str, Profile] | str:
    """A profile, profiles by container name, or the name of a built-in. Raises ProfileError."""
    text = text.strip()
    if not text.startswith("{"):
        return text
    try:
        if '"containers"' in text:
            return msgspec.json.decode(text, type=_PerContainer).containers
        return msgspec.json.decode(text, type=Profile)
    except (msgspec.DecodeError, ValueError) as error:
        raise ProfileError(str(error)) from error
