"""Usage as a share of what is requested, over time: what an autoscaler steers by."""

import msgspec

from opsapi.telemetry.model import Answer, Observed, Span, Unobserved, UsageHistory, WorkloadSelector
from opsapi.telemetry.ports import Metrics


class Utilisation(msgspec.Struct, frozen=True):
    """At a moment (Unix seconds): percent of the pods' requests that they used, null where nothing is requested or
    measured, and how many pods were measured."""

    at: float
    cpu_percentage: float | None
    memory_percentage: float | None
    pods: int


def utilisation(
    history: UsageHistory, cpu_request_millicores: float | None, memory_request_bytes: int | None
) -> tuple[Utilisation, ...]:
    """Sum of usage / (measured pods x a pod's request), as the HorizontalPodAutoscaler does it (sum of usage over sum
    of requests). The requests are one pod's, all its containers together."""
    cpu: dict[float, float] = {}
    memory: dict[float, float] = {}
    pods: dict[float, set[str]] = {}
    halves: set[tuple[str, float]] = set()
    for one in history.series:
        for at, millicores, held in zip(one.at, one.cpu_millicores, one.memory_bytes, strict=True):
            pods.setdefault(at, set()).add(one.pod)
            if millicores is None:
                halves.add(("cpu", at))
            else:
                cpu[at] = cpu.get(at, 0.0) + millicores
            if held is None:
                halves.add(("memory", at))
            else:
                memory[at] = memory.get(at, 0.0) + held

    def share(name: str, used: dict[float, float], at: float, request: float | None) -> float | None:
        """A container without a figure makes the sum too small: no sum is better."""
        if not request or at not in used or (name, at) in halves:
            return None
        return 100 * used[at] / (request * len(pods[at]))

    return tuple(
        Utilisation(
            at,
            share("cpu", cpu, at, cpu_request_millicores),
            share("memory", memory, at, memory_request_bytes),
            len(pods[at]),
        )
        for at in sorted(pods)
    )


async def utilisation_history(
    metrics: Metrics,
    workspace_id: str,
    workload: WorkloadSelector,
    span: Span,
    *,
    cpu_request_millicores: float | None,
    memory_request_bytes: int | None = None,
) -> Answer[tuple[Utilisation, ...]]:
    """Minute by minute where `span.step` is one; the requests are a pod's of today, since a wish for replicas is about
    pods as they are now."""
    answer = await metrics.usage_history(workspace_id, workload, span)
    if isinstance(answer, Unobserved):
        return answer
    figures = utilisation(answer.figures, cpu_request_millicores, memory_request_bytes)
    return Observed(figures, answer.source, answer.query, answer.observed_at, answer.missing, answer.warnings)
