"""When an operation will probably be done: from what its steps took before, else from published defaults."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from statistics import median

from opsapi.operations.model import Operation, StepState
from opsapi.operations.procedures import Procedure

ENOUGH_RUNS = 5
"""Below this many completed runs the published default stands."""
RUNS_CONSIDERED = 20


def step_estimates(
    procedure: Procedure, names: Sequence[str], history: Mapping[str, Sequence[float]]
) -> dict[str, float]:
    """Seconds by step: the median of the last runs of the same step of the same action, else its default."""
    estimates = {}
    for name in names:
        runs = history.get(name, ())
        step = procedure.step(name)
        if len(runs) >= ENOUGH_RUNS:
            estimates[name] = round(median(runs), 3)
        elif step is not None:
            estimates[name] = step.estimate.total_seconds()
    return estimates


def remaining_completion(operation: Operation, now: datetime) -> datetime | None:
    """`now` plus what the open steps are estimated to take still; None where a step has no estimate or it has ended.

    A step that runs longer than estimated counts as about to end.
    """
    if operation.state.final:
        return None
    seconds = 0.0
    for step in operation.steps:
        if step.state not in (StepState.PENDING, StepState.IN_PROGRESS):
            continue
        if step.estimated_seconds is None:
            return None
        passed = (now - step.started_at).total_seconds() if step.started_at is not None else 0.0
        seconds += max(0.0, step.estimated_seconds - passed)
    return now + timedelta(seconds=seconds)
