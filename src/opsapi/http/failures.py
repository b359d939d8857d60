"""From an error to its answer."""

from opsapi.http.envelope import encode_error
from opsapi.http.errors import MethodNotAllowed
from opsapi.http.exchange import Answer, Exchange, Header
from opsapi.kit.errors import OpsError


def failure(error: OpsError, exchange: Exchange) -> Answer:
    headers: list[Header] = []
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allowed).encode()))
    if error.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="opsapi"'))
    return Answer(error.status, encode_error(error, exchange.request_id), headers, error.code)
