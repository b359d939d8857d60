"""What a failure of the transport means to whoever acts."""

from collections.abc import Iterator
from contextlib import contextmanager

from opsapi.adapters.kubernetes.transport import Refused, Unreachable
from opsapi.adapters.kubernetes.wire import Undecodable
from opsapi.kit.errors import DependencyUnavailable
from opsapi.workspaces.writing import OutcomeUnknown, TargetGone, WriteConflict, WriteRefused

COMPONENT = "kubernetes_api"
_WEBHOOK_FAILED = "Internal error occurred: failed calling webhook"
"""A 500 that is certain: admission comes before anything is kept."""


@contextmanager
def reading(workspace_id: str) -> Iterator[None]:
    try:
        yield
    except Unreachable as failure:
        raise unavailable(workspace_id, failure.reason) from failure
    except Undecodable as garbled:
        raise unavailable(workspace_id, "its answer cannot be read") from garbled
    except Refused as refused:
        if refused.status >= 500:
            raise unavailable(workspace_id, refused.message, refused.retry_after) from refused
        raise told(workspace_id, refused) from refused


@contextmanager
def writing(workspace_id: str, *, dry_run: bool) -> Iterator[None]:
    try:
        yield
    except Unreachable as failure:
        if dry_run or not failure.sent:
            raise unavailable(workspace_id, failure.reason) from failure
        raise unknown(workspace_id, failure.reason) from failure
    except Undecodable as garbled:
        if dry_run:
            raise unavailable(workspace_id, "its answer cannot be read") from garbled
        raise unknown(workspace_id, "its answer cannot be read") from garbled
    except Refused as refused:
        if refused.status < 500:
            raise told(workspace_id, refused) from refused
        if refused.message.startswith(_WEBHOOK_FAILED):
            raise WriteRefused(refused.reason, refused.message, refused.status) from refused
        if dry_run:
            raise unavailable(workspace_id, refused.message, refused.retry_after) from refused
        raise unknown(workspace_id, refused.message) from refused


def told(workspace_id: str, refused: Refused) -> Exception:
    """What a failure below 500 means. The server did not do it, that much is certain."""
    match refused.status, refused.reason:
        case 404, "NotFound":
            return TargetGone(refused.message)
        case 409, _:
            return WriteConflict(refused.message)
        case 422, _ if any(cause.field == "metadata.uid" for cause in refused.causes):
            return WriteConflict(refused.message)
        case 401, _:
            return unavailable(workspace_id, "the credentials are not accepted")
        case 429, _:
            return unavailable(workspace_id, refused.message, refused.retry_after)
        case _:
            return WriteRefused(refused.reason or f"HTTP {refused.status}", refused.message, refused.status)


def unavailable(workspace_id: str, reason: str, retry_after: float | None = None) -> DependencyUnavailable:
    seconds = 5 if retry_after is None else max(1, round(retry_after))
    return DependencyUnavailable(COMPONENT, reason, workspace_id=workspace_id, retry_after=seconds)


def unknown(workspace_id: str, reason: str) -> OutcomeUnknown:
    return OutcomeUnknown(COMPONENT, f"a write was sent, but {reason}", workspace_id=workspace_id)
