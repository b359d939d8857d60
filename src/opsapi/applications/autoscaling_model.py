"""What a caller asks of autoscaling, what it answers, and the figures in between. Pure."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from opsapi.applications.scaling_model import ScaleOrder, ScalePlan
from opsapi.kit.duration import parse_duration
from opsapi.kit.endpoint import Body, Params
from opsapi.kit.errors import ValidationFailed
from opsapi.operations.desk import PlanHash
from opsapi.policy.evaluation import judge_range
from opsapi.policy.model import Ranges

Figure = Annotated[float, Meta(ge=0, le=1e12)]
Threshold = Annotated[float, Meta(gt=0, le=1000)]


class Trigger(StrEnum):
    CPU = "cpu_threshold"
    MEMORY = "memory_threshold"
    REQUEST_RATE = "request_rate"


class ScalingAction(StrEnum):
    UP = "scale_up"
    DOWN = "scale_down"
    NONE = "none"


class ClaimedMetrics(Body, frozen=True, kw_only=True):
    """What the caller has measured: recorded and compared, never acted on. Percent of requests, and 1/s."""

    cpu_percentage: Figure | None = None
    memory_percentage: Figure | None = None
    request_rate: Figure | None = None

    def of(self, trigger: Trigger) -> float | None:
        match trigger:
            case Trigger.CPU:
                return self.cpu_percentage
            case Trigger.MEMORY:
                return self.memory_percentage
            case Trigger.REQUEST_RATE:
                return self.request_rate


class ScalingPolicy(Body, frozen=True, kw_only=True):
    """Thresholds in percent: of the pods' requests, or, for the trigger `request_rate`, of `requests_per_pod` (1/s that
    one pod is to serve at most). `cooldown_period` (`5m`) only ever lengthens policy's own."""

    scale_up_threshold: Threshold = 80.0
    scale_down_threshold: Threshold = 30.0
    cooldown_period: Annotated[str, Meta(max_length=32)] | None = None
    requests_per_pod: Annotated[float, Meta(gt=0, le=1e9)] | UnsetType = UNSET

    @property
    def per_pod(self) -> float:
        """`requests_per_pod`, where the trigger is about it."""
        return 1.0 if self.requests_per_pod is UNSET else self.requests_per_pod

    def checked(self, trigger: Trigger, ranges: Ranges) -> float:
        """The cooldown in seconds, 0 where none is asked for. Raises ValidationFailed where a field is out of policy's
        range, or they do not go together."""
        faults: dict[str, str | None] = {
            "scale_up_threshold": judge_range("a threshold", self.scale_up_threshold, ranges.scale_up_threshold),
            "scale_down_threshold": judge_range("a threshold", self.scale_down_threshold, ranges.scale_down_threshold),
        }
        if self.scale_down_threshold >= self.scale_up_threshold:
            faults["scale_down_threshold"] = f"must be below scale_up_threshold ({self.scale_up_threshold:g})"
        seconds = 0.0
        if self.cooldown_period is not None:
            try:
                seconds = parse_duration(self.cooldown_period).total_seconds()
                faults["cooldown_period"] = judge_range("a cooldown in seconds", seconds, ranges.cooldown_seconds)
            except ValueError as error:
                faults["cooldown_period"] = str(error)
        if trigger is Trigger.REQUEST_RATE and self.requests_per_pod is UNSET:
            faults["requests_per_pod"] = "is required for the trigger request_rate: a rate alone has no percentage"
        found = {f"scaling_policy.{name}": fault for name, fault in faults.items() if fault is not None}
        if found:
            raise ValidationFailed(found)
        return seconds


class AutoscaleBody(Body, frozen=True, kw_only=True):
    """`current_metrics` are recorded and compared with what is measured; the measured ones count. With `plan_hash`, of
    a dry run, exactly that plan is carried out or the answer is `STALE_PLAN`; `confirmation_required` puts it before a
    person in any case."""

    trigger: Trigger
    current_metrics: ClaimedMetrics = ClaimedMetrics()
    scaling_policy: ScalingPolicy = ScalingPolicy()
    reason: Annotated[str, Meta(max_length=1000)] | None = None
    dry_run: bool = False
    plan_hash: PlanHash | None = None
    confirmation_required: bool = False


class AutoscaleParams(Params, frozen=True, kw_only=True):
    application_id: str


class MeasuredView(msgspec.Struct, frozen=True, kw_only=True):
    """What the decision rests on. `value`: the mean over `pods_measured` ready pods, in percent of what the thresholds
    are of; null where nothing was measured. `target` is the middle of the thresholds."""

    value: float | None
    target: float
    pods_ready: int
    pods_measured: int
    source: str | None
    observed_at: datetime | None


class AutoscaleAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`scaling_action`: `scale_up` or `scale_down` (202), or `none` (200). `status`: `scaling`, `pending_approval` (a
    person decides), `planned` (dry run) or `unchanged`."""

    application_id: str
    scaling_action: ScalingAction
    previous_replicas: int
    new_replicas: int
    reason: str
    triggered_at: datetime
    estimated_completion: datetime | None
    status: str | UnsetType = UNSET
    operation_id: str | UnsetType = UNSET
    measured: MeasuredView | UnsetType = UNSET
    plan: ScalePlan | UnsetType = UNSET


class PodLoad(msgspec.Struct, frozen=True):
    """One pod: whether it is ready, and its usage in percent of its own requests, null where it was not measured."""

    name: str
    ready: bool
    percentage: float | None


class PastLoad(msgspec.Struct, frozen=True):
    """At a moment (Unix seconds): the load in whole pods' worth (1.0 is one pod at 100 %), and how many pods bore it,
    null where that is not known."""

    at: float
    load: float
    pods: int | None


class Window(msgspec.Struct, frozen=True):
    """The past that a scale-down looks back on. `missing` is why it cannot be judged, empty where it can."""

    seconds: float
    loads: tuple[PastLoad, ...] = ()
    missing: str = ""


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """`percentage` is the mean of the ready pods that were measured, null where nothing can be said (`missing`)."""

    percentage: float | None
    ready: int
    measured: int
    source: str = ""
    observed_at: datetime | None = None
    missing: str = ""


class Thresholds(msgspec.Struct, frozen=True):
    up: float
    down: float

    @property
    def target(self) -> float:
        return (self.up + self.down) / 2


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What the figures say; whether it may be done, policy says."""

    action: ScalingAction
    replicas: int
    reason: str
    warnings: tuple[str, ...] = ()


class AutoscaleOrder(ScaleOrder, frozen=True, kw_only=True):
    """A scaling order, with what led to it: the steps read the scaling part. `decided` is the reason in figures."""

    action: ScalingAction = ScalingAction.NONE
    trigger: Trigger = Trigger.CPU
    policy: ScalingPolicy = ScalingPolicy()
    claimed: ClaimedMetrics = ClaimedMetrics()
    measured: MeasuredView | None = None
    decided: str = ""
