"""API server faults that tests and the fault engineer switch on and off while the server runs."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from opsapi.playground.api.request import Target
from opsapi.playground.machinery.status import expired, failure
from opsapi.playground.registry import ApiError


class FaultMode(StrEnum):
    AWAY = "away"
    """Connections are dropped without an answer."""
    THROTTLED = "throttled"
    """429 with Retry-After."""
    ERROR = "error"
    """500."""
    SLOW = "slow"
    WATCH_CUT = "watch-cut"
    """Watches end after `after_events` events, cleanly or, with `mid_line`, in the middle of one."""
    GONE = "gone"
    """The next watch answers 410 as its HTTP status."""
    GONE_IN_STREAM = "gone-in-stream"
    """A watch sends a 410 ERROR event after `after_events` events, and ends."""
    FORBIDDEN = "forbidden"
    """403 for `resource`."""


_WATCH_MODES = (FaultMode.WATCH_CUT, FaultMode.GONE_IN_STREAM)


@dataclass(slots=True)
class ApiFault:
    """One fault. `count` is how many requests it still hits (None: all). The filters are ANDed.

    `path` is a prefix, `resource` a plural, `verb` as RBAC names it. Delays are in milliseconds of wall time.
    """

    mode: FaultMode
    count: int | None = None
    path: str = ""
    resource: str = ""
    verb: str = ""
    delay_ms: int = 0
    after_events: int = 0
    mid_line: bool = False
    retry_after: int = 1

    def concerns(self, target: Target) -> bool:
        if self.path and not target.path.startswith(self.path):
            return False
        if self.resource and target.resource != self.resource:
            return False
        return not self.verb or target.verb == self.verb


@dataclass(frozen=True, slots=True)
class WatchFault:
    after_events: int
    mid_line: bool
    gone: bool


@dataclass(slots=True)
class Verdict:
    """What happens to one request before it is served."""

    delay: float = 0.0
    drop: bool = False
    error: ApiError | None = None


@dataclass(slots=True)
class ApiFaults:
    """The faults in force, in the order in which they were added. `hits` counts requests by mode."""

    active: list[ApiFault] = field(default_factory=list)
    hits: dict[FaultMode, int] = field(default_factory=dict)
    exempt: tuple[str, ...] = ("/playground/",)
    """Path prefixes that no fault touches: the way to switch faults off again."""

    def add(self, fault: ApiFault) -> ApiFault:
        """Puts a copy in force and returns it, for `remove`."""
        made = replace(fault)
        self.active.append(made)
        return made

    def remove(self, fault: ApiFault) -> None:
        self.active = [one for one in self.active if one is not fault]

    def clear(self, mode: FaultMode | None = None) -> None:
        self.active = [one for one in self.active if mode is not None and one.mode is not mode]

    def judge(self, target: Target) -> Verdict:
        verdict = Verdict()
        if target.path.startswith(self.exempt):
            return verdict
        for fault in list(self.active):
            if fault.mode in _WATCH_MODES or not fault.concerns(target):
                continue
            if fault.mode is FaultMode.GONE and target.verb != "watch":
                continue
            self._spend(fault)
            if fault.mode is FaultMode.SLOW:
                verdict.delay += fault.delay_ms / 1000
                continue
            if fault.mode is FaultMode.AWAY:
                verdict.drop = True
            else:
                verdict.error = _error(fault, target)
            return verdict
        return verdict

    def watch_fault(self, target: Target) -> WatchFault | None:
        """The fault that will end a watch that begins now."""
        for fault in list(self.active):
            if fault.mode in _WATCH_MODES and fault.concerns(target):
                self._spend(fault)
                return WatchFault(fault.after_events, fault.mid_line, fault.mode is FaultMode.GONE_IN_STREAM)
        return None

    def _spend(self, fault: ApiFault) -> None:
        self.hits[fault.mode] = self.hits.get(fault.mode, 0) + 1
        if fault.count is not None:
            fault.count -= 1
            if fault.count <= 0:
                self.remove(fault)


def _error(fault: ApiFault, target: Target) -> ApiError:
    if fault.mode is FaultMode.THROTTLED:
        details = {"retryAfterSeconds": fault.retry_after}
        return failure(429, "TooManyRequests", "too many requests, please try again later", details)
    if fault.mode is FaultMode.GONE:
        return expired("too old resource version: 1 (2)")
    if fault.mode is FaultMode.FORBIDDEN:
        named: dict[str, Any] = {"kind": target.resource}
        if target.name:
            named["name"] = target.name
        if target.group:
            named["group"] = target.group
        group_resource = f"{target.resource}.{target.group}" if target.group else target.resource
        where = f'in the namespace "{target.namespace}"' if target.namespace else "at the cluster scope"
        what = f'cannot {target.verb} resource "{target.resource}" in API group "{target.group}" {where}'
        return failure(403, "Forbidden", f"{group_resource} is forbidden: {what}", named)
    told = "Internal error occurred: injected fault"
    return failure(500, "InternalError", told, {"causes": [{"message": "injected fault"}]})
