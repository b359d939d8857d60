"""What an operator can set about the engine."""

from typing import Annotated

import msgspec
from msgspec import Meta

Seconds = Annotated[float, Meta(gt=0, le=3600)]


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Times in seconds, of the wall clock."""

    concurrency: Annotated[int, Meta(ge=1, le=256)] = 8
    """Operations that one process works on at once."""
    lease_seconds: Seconds = 15
    """After a worker's death another takes its operations over this much later; renewed every third of it."""
    poll_seconds: Seconds = 0.5
    """How often idle workers look for operations that other replicas queued or abandoned."""
    step_attempts: Annotated[int, Meta(ge=1, le=100)] = 12
    """Tries of a step that meets passing failures (a cluster that is away), the first included."""
    backoff_seconds: Seconds = 1
    """The pause after the first failed try; doubles each time."""
    backoff_max_seconds: Seconds = 60
    """The longest pause."""
    drain_seconds: Annotated[float, Meta(ge=0, le=3600)] = 20
    """How long a stopping worker lets running operations end before it hands them over."""
    history_days: Annotated[int, Meta(ge=1, le=3650)] = 90
    """How long ended operations are kept."""
    wait_max_seconds: Seconds = 30
    """The longest that `GET /operations/{id}?wait=` holds the line."""
