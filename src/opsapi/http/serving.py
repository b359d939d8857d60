"""One guarded call: head, guard, parameters, body, handler, envelope, in that order."""

import asyncio
from collections.abc import Mapping

from opsapi.http.bodies import read_body
from opsapi.http.deadlines import Deadlines
from opsapi.http.envelope import API_PREFIX, encode_events, encode_reply
from opsapi.http.errors import NotAcceptable, UnsupportedMediaType
from opsapi.http.exchange import Answer, Exchange, Receive, Scope
from opsapi.http.guard import Guard, allowed_methods
from opsapi.http.params import parse_query
from opsapi.http.ports import Recorder
from opsapi.http.projection import Selection
from opsapi.http.replays import Replays, idempotency_key
from opsapi.http.routing import Match, Route, Router
from opsapi.http.settings import HttpSettings
from opsapi.kit.caller import Call
from opsapi.kit.endpoint import OTHER, Body, EventStream, NoBody, Params
from opsapi.kit.errors import DependencyUnavailable, ValidationFailed

_ANY_ACCEPT = frozenset({b"*/*", b"application/json", b"application/json, */*;q=0.5", b"application/*"})
_JSON = frozenset({b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"})
_JSON_TYPE = b"application/json"
_EVENT_STREAM = b"text/event-stream"
_NO_BODY = NoBody()


class Serving:
    def __init__(
        self,
        router: Router,
        guard: Guard,
        replays: Replays | None,
        recorder: Recorder,
        documents: Mapping[bytes, Answer],
        settings: HttpSettings,
    ) -> None:
        """`documents`: by raw path, what any account may read."""
        self._documents = documents
        self._recorder = recorder
        self._router = router
        self._guard = guard
        self._replays = replays
        self._settings = settings
        self._deadlines = Deadlines(settings.handler_timeout_seconds)
        self._other_per_minute = settings.limits.get(OTHER.name, OTHER.per_minute)

    async def answer(self, exchange: Exchange, scope: Scope, receive: Receive) -> Answer:
        """Raises OpsError for whatever the caller did wrong or could not have, ClientDisconnected."""
        guard = self._guard
        try:
            self._recorder.ensure_room()
        except DependencyUnavailable:
            await guard.stand(exchange)
            raise
        match = self._router.match(exchange.raw_path)
        route = None if match is None else match.methods.get("GET" if exchange.method == "HEAD" else exchange.method)
        basic = route is not None and route.declaration.basic_auth
        await guard.authenticate(exchange, scope["headers"], basic=basic)
        if match is not None and exchange.method == "OPTIONS":
            return await self._options(exchange, match)
        document = self._documents.get(exchange.raw_path)
        if document is not None and exchange.method in ("GET", "HEAD"):
            await guard.count(exchange, OTHER, self._other_per_minute)
            return document
        if match is None or route is None:
            await guard.refuse(exchange, match)
        exchange.route = route
        await guard.admit(exchange, route, match)
        accept = exchange.headers.get(b"accept")
        wanted = _EVENT_STREAM if route.declaration.streams else _JSON_TYPE
        if accept is not None and accept not in _ANY_ACCEPT and not accepts(accept, wanted):
            raise NotAcceptable(accept.decode("latin-1"))
        params, selection = _parameters(exchange, route)
        key = idempotency_key(exchange, route)
        body: Body = _NO_BODY
        if route.takes_body or exchange.has_body:
            body = await self._body(exchange, route, receive)
        if key is None:
            return await self._run(exchange, route, params, body, None, selection)
        if self._replays is None:
            raise ValidationFailed({"Idempotency-Key": "this installation keeps no answers for replays"})
        return await self._replays.once(
            exchange, key, params, body, lambda: self._run(exchange, route, params, body, key, selection)
        )

    async def _options(self, exchange: Exchange, match: Match) -> Answer:
        await self._guard.count(exchange, OTHER, self._other_per_minute)
        return Answer(204, b"", [(b"allow", ", ".join(allowed_methods(match)).encode())])

    async def _body(self, exchange: Exchange, route: Route, receive: Receive) -> Body:
        if not exchange.has_body:
            exchange.body_read = True
            return route.body.decode(b"")
        if not route.takes_body:
            raise ValidationFailed({"body": "this method takes none"})
        content_type = exchange.headers.get(b"content-type", b"")
        if content_type not in _JSON and not _is_json(content_type):
            raise UnsupportedMediaType(content_type.decode("latin-1"))
        if exchange.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise UnsupportedMediaType("content-encoding " + exchange.headers[b"content-encoding"].decode("latin-1"))
        raw = await read_body(
            receive,
            declared=exchange.declared_length,
            limit=self._settings.body_max_bytes,
            seconds=self._settings.body_timeout_seconds,
        )
        exchange.body_read = True
        return route.body.decode(raw)

    async def _run(
        self, exchange: Exchange, route: Route, params: Params, body: Body, key: str | None, selection: Selection | None
    ) -> Answer:
        assert exchange.caller is not None
        declared = route.declaration
        call = Call(
            exchange.caller,
            exchange.request_id,
            declared.name,
            exchange.method,
            exchange.path,
            exchange.received_at,
            exchange.started,
            key,
            exchange.audit,
        )
        task = self._deadlines.enter()
        try:
            reply = await route.handle(call, params, body)
        except asyncio.CancelledError:
            if not self._deadlines.expired(task):
                raise
            seconds = self._settings.handler_timeout_seconds
            raise DependencyUnavailable("api_server", f"no answer within {seconds:g} s") from None
        finally:
            self._deadlines.leave(task)
        if isinstance(reply, EventStream):
            return Answer(200, b"", content_type=_EVENT_STREAM.decode(), stream=encode_events(reply.events))
        answer = Answer(reply.status or declared.success[0], encode_reply(reply, exchange.request_id, selection))
        if reply.operation_id is not None:
            answer.status = reply.status or 202
            answer.headers.append((b"location", f"{API_PREFIX}/operations/{reply.operation_id}".encode()))
            exchange.audit.operation_id = exchange.audit.operation_id or reply.operation_id
        return answer


def _parameters(exchange: Exchange, route: Route) -> tuple[Params, Selection | None]:
    query = parse_query(exchange.query) if exchange.query else {}
    selection = None
    if route.projection is not None:
        fields = query.pop("fields", None)
        if fields is not None:
            selection = route.projection.parse(fields)
    return route.params.decode(exchange.values, query), selection


def _is_json(content_type: bytes) -> bool:
    media, *parameters = content_type.lower().split(b";")
    return media.strip() == b"application/json" and all(
        parameter.strip() in (b"", b"charset=utf-8", b'charset="utf-8"') for parameter in parameters
    )


def accepts(accept: bytes, media_type: bytes) -> bool:
    """RFC 9110, 12.5.1: the most specific range that fits decides; q=0 excludes."""
    best, quality = -1, 0.0
    group = media_type.partition(b"/")[0] + b"/*"
    for part in accept.lower().split(b","):
        media, *parameters = [piece.strip() for piece in part.split(b";")]
        precision = {b"*/*": 0, group: 1, media_type: 2}.get(media, -1)
        if precision > best:
            best, quality = precision, _quality(parameters)
    return best >= 0 and quality > 0


def _quality(parameters: list[bytes]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
