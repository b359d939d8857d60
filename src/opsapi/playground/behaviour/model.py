"""One container's behaviour: its profile, its command and the faults injected into it, as the kubelet asks for them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from opsapi.playground.behaviour import shell
from opsapi.playground.behaviour.builtin import PROFILES, SHELL_IMAGES, by_image, image_name
from opsapi.playground.behaviour.profile import ANNOTATION, Exit, Health, Profile, ProfileError, parse_profile
from opsapi.playground.behaviour.usage import NEUTRAL, Modifiers
from opsapi.playground.registry import Obj


@dataclass(frozen=True, slots=True)
class Overlay:
    """What the active faults change in one container."""

    modifiers: Modifiers = NEUTRAL
    exit: Exit | None = None
    unready: str = ""
    """The probe's message where readiness is made to fail."""
    unlive: str = ""


CLEAN = Overlay()


def profile_of(pod: Obj, container: Obj) -> Profile:
    """By annotation, else by image. A profile that does not parse counts as absent (see profile_problem)."""
    text = (pod["metadata"].get("annotations") or {}).get(ANNOTATION)
    fallback = by_image(container.get("image", ""))
    if not text:
        return fallback
    try:
        found = parse_profile(text)
    except ProfileError:
        return fallback
    if isinstance(found, dict):
        return found.get(container["name"], fallback)
    containers = pod["spec"].get("containers") or []
    if not containers or containers[0]["name"] != container["name"]:
        return fallback
    return PROFILES.get(found, fallback) if isinstance(found, str) else found


def profile_problem(pod: Obj) -> str | None:
    """What is wrong with the pod's profile annotation; None where nothing is."""
    text = (pod["metadata"].get("annotations") or {}).get(ANNOTATION)
    if not text:
        return None
    try:
        found = parse_profile(text)
    except ProfileError as error:
        return str(error)
    if isinstance(found, str) and found not in PROFILES:
        return f"invalid {ANNOTATION}: no built-in profile {found!r}; there are {', '.join(sorted(PROFILES))}"
    return None


@dataclass(frozen=True, slots=True)
class ContainerModel:
    profile: Profile
    script: shell.Script | None
    spec: Obj

    @classmethod
    def of(cls, pod: Obj, container: Obj) -> "ContainerModel":
        script = shell.run(container.get("command") or [], container.get("args") or [])
        silent = not container.get("command") and not container.get("args")
        annotated = ANNOTATION in (pod["metadata"].get("annotations") or {})
        if silent and not annotated and image_name(container.get("image", "")) in SHELL_IMAGES:
            script = shell.Script((), 0.0, 0)
        return cls(profile_of(pod, container), script, container)

    def missing_env(self, env: Mapping[str, str]) -> list[str]:
        return [name for name in self.profile.requires_env if not env.get(name)]

    def exit(self, env: Mapping[str, str], overlay: Overlay) -> Exit | None:
        """How and when (from its start) this process will end by itself; None where it will not."""
        if overlay.exit is not None:
            return overlay.exit
        missing = self.missing_env(env)
        if missing:
            return Exit(0.8, 1, tuple(f"required environment variable {name} is not set" for name in missing))
        if self.script is not None:
            if math.isinf(self.script.ends_after):
                return None
            return Exit(self.script.ends_after, self.script.code)
        return self.profile.exit

    def probe(self, kind: str, handler: Obj, uptime: float, overlay: Overlay, ip: str) -> tuple[bool, str]:
        """Whether a probe succeeds now, and what the kubelet writes where it does not."""
        refused = self._refusal(handler, ip)
        if refused:
            return False, refused
        forced = overlay.unlive if kind == "liveness" else overlay.unready
        if forced:
            return False, forced
        health = self._health(kind)
        if uptime < health.after_seconds and kind != "liveness":
            return False, _connection_refused(handler, ip, self._port(handler))
        if health.path and "httpGet" in handler and handler["httpGet"].get("path", "/") != health.path:
            return False, "HTTP probe failed with statuscode: 404"
        if health.never or _in_bad_spell(health, uptime):
            return False, _worded(handler, health.message)
        return True, ""

    def trouble_after(self, kind: str, uptime: float) -> float:
        """The uptime from which a probe that succeeds now may fail; infinite where it never will by itself."""
        health = self._health(kind)
        if health.never:
            return uptime
        if health.every_seconds <= 0 or health.for_seconds <= 0:
            return math.inf
        spell = health.every_seconds - health.for_seconds
        cycle = math.floor(uptime / health.every_seconds) * health.every_seconds
        return cycle + spell if uptime < cycle + spell else uptime

    def _health(self, kind: str) -> Health:
        return self.profile.liveness if kind == "liveness" else self.profile.readiness

    def _port(self, handler: Obj) -> int | None:
        port = next((handler[name].get("port") for name in ("httpGet", "tcpSocket", "grpc") if name in handler), None)
        if isinstance(port, str) and not port.isdigit():
            named = [item for item in self.spec.get("ports") or [] if item.get("name") == port]
            return int(named[0]["containerPort"]) if named else None
        return None if port is None else int(port)

    def _refusal(self, handler: Obj, ip: str) -> str:
        """A probe of a port that the container does not declare meets nobody; one that declares none answers all."""
        declared = [int(item["containerPort"]) for item in self.spec.get("ports") or []]
        port = self._port(handler)
        if port is None or not declared or port in declared:
            return ""
        return _connection_refused(handler, ip, port)


def _in_bad_spell(health: Health, uptime: float) -> bool:
    if health.every_seconds <= 0:
        return False
    return uptime % health.every_seconds >= health.every_seconds - health.for_seconds


def _connection_refused(handler: Obj, ip: str, port: int | None) -> str:
    dial = f"dial tcp {ip}:{port}: connect: connection refused"
    if "httpGet" in handler:
        get = handler["httpGet"]
        scheme = get.get("scheme", "HTTP").lower()
        return f'Get "{scheme}://{ip}:{port}{get.get("path", "/")}": {dial}'
    if "grpc" in handler:
        return f'timeout: failed to connect service "{ip}:{port}" within 1s: context deadline exceeded'
    if "exec" in handler:
        return "command terminated with exit code 1"
    return dial


def _worded(handler: Obj, message: str) -> str:
    if "httpGet" in handler:
        return message
    if "grpc" in handler:
        return 'service unhealthy (responded with "NOT_SERVING")'
    return "command terminated with exit code 1" if "exec" in handler else message
