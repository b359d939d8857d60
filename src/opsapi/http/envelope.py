"""The one shape of every answer: `{"data", "meta"}` on success, `{"error"}` on failure."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from opsapi.http.projection import Selection, kept_partial, kept_pointers, project
from opsapi.kit.endpoint import Partial, Reply, ServerSentEvent
from opsapi.kit.errors import OpsError

API_PREFIX = "/internal/v1"


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """`observed_at`: the oldest observation of a cluster behind the answer, null where it rests on the service's own
    state alone. `partial.field` is a dotted path below `data`; `untrusted` holds JSON Pointers into the whole answer.
    """

    request_id: str
    observed_at: datetime | None
    partial: list[Partial]
    truncated: bool
    untrusted: list[str]
    next_cursor: str | UnsetType = UNSET
    operation_id: str | UnsetType = UNSET
    poll_after_ms: int | UnsetType = UNSET
    warnings: list[str] | UnsetType = UNSET


class Envelope(msgspec.Struct, frozen=True):
    data: Any
    meta: Meta


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    message: str
    details: Any
    request_id: str


class FailureEnvelope(msgspec.Struct, frozen=True):
    error: Failure


_encoder = msgspec.json.Encoder()
_DEFAULT_POLL_MS = 1000


def encode_reply(reply: Reply[Any], request_id: str, selection: Selection | None) -> bytes:
    observed_at = reply.observed_at
    if observed_at is not None and observed_at.microsecond:
        observed_at = observed_at.replace(microsecond=0)
    data, partial, untrusted = reply.data, reply.partial, reply.untrusted
    if not selection:
        data = data if reply.encoded is None else reply.encoded
    else:
        data = project(data, selection)
        partial = kept_partial(partial, selection)
        untrusted = kept_pointers(untrusted, selection)
    started = reply.operation_id is not None
    meta = Meta(
        request_id=request_id,
        observed_at=observed_at,
        partial=partial,
        truncated=reply.truncated,
        untrusted=["/data" + pointer for pointer in untrusted] if untrusted else untrusted,
        next_cursor=UNSET if reply.next_cursor is None else reply.next_cursor,
        operation_id=UNSET if reply.operation_id is None else reply.operation_id,
        poll_after_ms=(reply.poll_after_ms or _DEFAULT_POLL_MS) if started else (reply.poll_after_ms or UNSET),
        warnings=reply.warnings or UNSET,
    )
    return _encoder.encode(Envelope(data, meta))


async def encode_events(events: AsyncIterator[ServerSentEvent]) -> AsyncIterator[bytes]:
    async for event in events:
        if event.name:
            yield b"event: %s\ndata: %s\n\n" % (event.name.encode(), _encoder.encode(event.data))
        else:
            yield b": still here\n\n"


def encode_error(error: OpsError, request_id: str) -> bytes:
    return _encoder.encode(
        FailureEnvelope(Failure(code=error.code, message=error.message, details=error.details, request_id=request_id))
    )
