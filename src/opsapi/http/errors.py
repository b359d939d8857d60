"""Failures of HTTP itself; a domain's own are in its `errors.py`, the general ones in the kit."""

from opsapi.kit.errors import Details, OpsError


class SyntaxDetails(Details, frozen=True, kw_only=True):
    reason: str
    line: int | None = None
    column: int | None = None


class MalformedJson(OpsError):
    code = "MALFORMED_JSON"
    status = 400
    summary = "The body is not one JSON document in UTF-8 with unique names; `details` points at the place."
    details_type = SyntaxDetails

    def __init__(self, reason: str, *, line: int | None = None, column: int | None = None) -> None:
        where = f" (line {line}, column {column})" if line is not None else ""
        super().__init__(
            f"The body is not valid JSON: {reason}{where}", SyntaxDetails(reason=reason, line=line, column=column)
        )


class MethodDetails(Details, frozen=True, kw_only=True):
    method: str
    allowed: list[str]


class MethodNotAllowed(OpsError):
    code = "METHOD_NOT_ALLOWED"
    status = 405
    summary = "The path exists, but not with this method; `Allow` and `details.allowed` list those that it has."
    details_type = MethodDetails

    def __init__(self, method: str, allowed: list[str]) -> None:
        shown = method[:20]
        self.allowed = allowed
        super().__init__(
            f"{shown} is not allowed here; allowed: {', '.join(allowed)}", MethodDetails(method=shown, allowed=allowed)
        )


class MediaTypeDetails(Details, frozen=True, kw_only=True):
    got: str
    supported: list[str]


class NotAcceptable(OpsError):
    code = "NOT_ACCEPTABLE"
    status = 406
    summary = "The caller's Accept header excludes application/json."
    details_type = MediaTypeDetails

    def __init__(self, got: str) -> None:
        super().__init__(
            "Answers are application/json, which the Accept header excludes",
            MediaTypeDetails(got=got[:200], supported=["application/json"]),
        )


class UnsupportedMediaType(OpsError):
    code = "UNSUPPORTED_MEDIA_TYPE"
    status = 415
    summary = "The body is declared as something other than application/json in UTF-8, unencoded."
    details_type = MediaTypeDetails

    def __init__(self, got: str) -> None:
        super().__init__(
            "Send the body as `Content-Type: application/json`, in UTF-8 and without Content-Encoding",
            MediaTypeDetails(got=got[:200], supported=["application/json"]),
        )


class TimeoutDetails(Details, frozen=True, kw_only=True):
    after_seconds: float


class RequestTimeout(OpsError):
    code = "REQUEST_TIMEOUT"
    status = 408
    summary = "The request's head or body did not arrive in time."
    details_type = TimeoutDetails

    def __init__(self, after_seconds: float) -> None:
        super().__init__(
            f"The request was not complete after {after_seconds:g} s", TimeoutDetails(after_seconds=after_seconds)
        )


class SizeDetails(Details, frozen=True, kw_only=True):
    limit_bytes: int


class PayloadTooLarge(OpsError):
    code = "PAYLOAD_TOO_LARGE"
    status = 413
    summary = "The body is larger than `details.limit_bytes`."
    details_type = SizeDetails

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The body is larger than {limit_bytes} bytes", SizeDetails(limit_bytes=limit_bytes))


class HeadersTooLarge(OpsError):
    code = "HEADERS_TOO_LARGE"
    status = 431
    summary = "The request line and headers together are larger than `details.limit_bytes`, or too many."
    details_type = SizeDetails

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"The request line and headers are larger than {limit_bytes} bytes or too many",
            SizeDetails(limit_bytes=limit_bytes),
        )


class KeyDetails(Details, frozen=True, kw_only=True):
    idempotency_key: str


class IdempotencyInProgress(OpsError):
    code = "IDEMPOTENCY_IN_PROGRESS"
    status = 409
    summary = "A call with the same Idempotency-Key and body is still running; ask again later for its answer."
    details_type = KeyDetails

    def __init__(self, key: str) -> None:
        super().__init__(
            "A call with this Idempotency-Key is still running", KeyDetails(idempotency_key=key), retry_after=2
        )


class IdempotencyKeyReused(OpsError):
    code = "IDEMPOTENCY_KEY_REUSED"
    status = 422
    summary = "The Idempotency-Key was used with another body or query within 24 hours."
    details_type = KeyDetails

    def __init__(self, key: str) -> None:
        super().__init__(
            "This Idempotency-Key was used with another body; send a new key", KeyDetails(idempotency_key=key)
        )


class LimitDetails(Details, frozen=True, kw_only=True):
    limit: int
    window_seconds: int
    counted: str
    """The limit class, or what else is counted."""


class RateLimitExceeded(OpsError):
    code = "RATE_LIMIT_EXCEEDED"
    status = 429
    summary = "Too many requests in this minute; `Retry-After` and `X-RateLimit-Reset` say when to go on."
    details_type = LimitDetails

    def __init__(self, counted: str, limit: int, retry_after: int) -> None:
        super().__init__(
            f"More than {limit} requests a minute ({counted}); try again in {retry_after} s",
            LimitDetails(limit=limit, window_seconds=60, counted=counted),
            retry_after=retry_after,
        )
