"""The requests of an application, for its details: measured where a source of metrics counts them, else null."""

import asyncio
from datetime import timedelta

import msgspec

from opsapi.applications.details import BuiltDetails
from opsapi.applications.identity import ApplicationRef
from opsapi.kit.endpoint import Partial
from opsapi.telemetry.model import Answer, Observed, Traffic, Unobserved, WorkloadSelector
from opsapi.telemetry.ports import Metrics

WINDOW = timedelta(minutes=5)
PATIENCE = 3.0
"""Seconds that details wait for a source: the rest of them is known at once."""
_FIELDS = {"request_rate": "request_rate", "error_rate": "error_rate", "response_time_p95": "latency_p95_ms"}
"""A field of the details -> of the figures."""


async def with_traffic(built: BuiltDetails, ref: ApplicationRef, metrics: Metrics) -> BuiltDetails:
    """The rates of the last five minutes, with why one is null."""
    services = tuple(one.name for one in built.data.services)
    workload = WorkloadSelector(ref.kind.kind, ref.namespace, ref.name, services=services)
    answer: Answer[Traffic]
    try:
        async with asyncio.timeout(PATIENCE):
            answer = await metrics.traffic(ref.workspace_id, workload, WINDOW)
    except TimeoutError:
        answer = Unobserved(f"no answer within {PATIENCE:g} s")
    if isinstance(answer, Unobserved):
        partial = [Partial(f"metrics.{field}", answer.reason) for field in _FIELDS]
        return msgspec.structs.replace(built, partial=[*built.partial, *partial])
    return _filled(built, answer)


def _filled(built: BuiltDetails, answer: Observed[Traffic]) -> BuiltDetails:
    partial = [
        Partial(f"metrics.{field}", answer.missing.get(name, "it was not measured"))
        for field, name in _FIELDS.items()
        if getattr(answer.figures, name) is None
    ]
    warnings = [f"{answer.source} says that what it knows of requests may be incomplete"] if answer.warnings else []
    shown = {field: _rounded(getattr(answer.figures, name)) for field, name in _FIELDS.items()}
    return BuiltDetails(
        msgspec.structs.replace(built.data, metrics=msgspec.structs.replace(built.data.metrics, **shown)),
        [*built.partial, *partial],
        min(built.observed_at, answer.observed_at),
        built.truncated,
        warnings,
    )


def _rounded(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 2)
