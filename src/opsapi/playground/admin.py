"""The control endpoint /playground/v1: time, faults and the Prometheus exposition, for the administrator's token."""

import itertools
import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from opsapi.kit.clock import rfc3339
from opsapi.playground.api.faults import ApiFault, ApiFaults, FaultMode
from opsapi.playground.api.request import Request
from opsapi.playground.api.responses import Response, json_response
from opsapi.playground.faults.world import NODE_FAULTS, POD_FAULTS, STORAGE_FAULTS, FaultError, FaultSpec
from opsapi.playground.machinery.status import failure
from opsapi.playground.registry import ApiError
from opsapi.playground.telemetry.prometheus import CONTENT_TYPE
from opsapi.playground.world import World

PREFIX = "/playground/v1"
T = TypeVar("T")
_PATHS = (
    "clock",
    "clock/advance",
    "faults",
    "faults/{id}",
    "metrics",
    "nodes/{name}/stats",
    "volumes/{namespace}/{claim}",
    "backups/{name}",
    "restores/{name}",
)
_MOST_SECONDS = 31 * 86400.0

API_FAULTS: dict[str, FaultMode] = {
    "api-away": FaultMode.AWAY,
    "api-429": FaultMode.THROTTLED,
    "api-500": FaultMode.ERROR,
    "api-slow": FaultMode.SLOW,
    "api-watch-cut": FaultMode.WATCH_CUT,
    "api-410": FaultMode.GONE,
    "api-410-in-stream": FaultMode.GONE_IN_STREAM,
    "api-403": FaultMode.FORBIDDEN,
}


class ApiFaultSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A fault of the API server. `count`: how many requests it hits, None: all; the filters are ANDed."""

    type: str
    count: int | None = None
    path: str = ""
    resource: str = ""
    verb: str = ""
    delay_ms: int = 0
    after_events: int = 0
    mid_line: bool = False
    retry_after: int = 1
    duration_seconds: float = 0.0


class AdvanceRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    seconds: float


class WriteRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a process is said to have written to a volume."""

    text: str


class _Kind(msgspec.Struct, frozen=True):
    type: str


def _bad(message: str) -> ApiError:
    return failure(400, "BadRequest", message)


class Admin:
    """Serves the paths below PREFIX; see `index` for what there is."""

    def __init__(self, world: World, api_faults: ApiFaults, speed: float) -> None:
        self._world = world
        self._api_faults = api_faults
        self._speed = speed
        self._numbers = itertools.count(1)
        self._active: dict[str, tuple[ApiFaultSpec, ApiFault, str]] = {}

    async def __call__(self, request: Request) -> Response:
        """Raises ApiError: 400 for bodies that make no sense, 404, 405."""
        path = request.path.removeprefix(PREFIX).strip("/")
        if not request.path.startswith(PREFIX):
            raise failure(404, "NotFound", f"the playground's control endpoint is {PREFIX}")
        head, _, rest = path.partition("/")
        routes: dict[str, Callable[[Request, str], Awaitable[Response]]] = {
            "": self._index,
            "clock": self._clock,
            "faults": self._faults,
            "metrics": self._metrics,
            "nodes": self._node,
            "volumes": self._volume,
            "backups": self._backup,
            "restores": self._restore,
        }
        if head not in routes:
            raise failure(404, "NotFound", f"{request.path} is none of the playground's control endpoints")
        return await routes[head](request, rest)

    async def _index(self, request: Request, _rest: str) -> Response:
        _only(request, "GET")
        paths = [f"{PREFIX}/{name}" for name in _PATHS]
        kinds = {"pod": POD_FAULTS, "node": NODE_FAULTS, "storage": STORAGE_FAULTS, "api": tuple(API_FAULTS)}
        return json_response({"paths": paths, "faults": kinds})

    # Time

    def _time(self) -> dict[str, Any]:
        clock = self._world.clock
        return {
            "now": rfc3339(clock.now()),
            "elapsed_seconds": round(clock.monotonic(), 3),
            "speed": self._speed,
            "seed": clock.seed,
        }

    async def _clock(self, request: Request, rest: str) -> Response:
        if not rest:
            _only(request, "GET")
            return json_response(self._time())
        if rest != "advance":
            raise failure(404, "NotFound", f"there is no {request.path}")
        _only(request, "POST")
        wanted = _decode(await request.body(), AdvanceRequest)
        if not math.isfinite(wanted.seconds) or not 0 <= wanted.seconds <= _MOST_SECONDS:
            raise _bad(f"seconds: {wanted.seconds} is not between 0 and {_MOST_SECONDS:.0f}")
        await self._world.clock.advance_in_slices(wanted.seconds)
        return json_response(self._time())

    # Faults

    def _listed(self) -> list[dict[str, Any]]:
        world = [_shown(fault.id, fault.since, fault.spec) for fault in self._world.faults.active()]
        return world + [_shown(number, since, spec) for number, (spec, _, since) in self._active.items()]

    async def _faults(self, request: Request, rest: str) -> Response:
        if rest:
            return await self._one_fault(request, rest)
        if request.method == "GET":
            self._drop_spent()
            return json_response({"faults": self._listed()})
        if request.method == "DELETE":
            cleared = self._world.faults.clear_all() + len(self._active)
            for number in list(self._active):
                self._clear_api(number)
            return json_response({"cleared": cleared})
        _only(request, "POST", "GET", "DELETE")
        body = await request.body()
        kind = _decode(body, _Kind).type
        if kind in API_FAULTS:
            return json_response(self._inject_api(_decode(body, ApiFaultSpec)), 201)
        if kind.startswith("api-"):
            raise _bad(f"type: {kind!r} is not one of {', '.join(API_FAULTS)}")
        try:
            fault = self._world.faults.inject(_decode(body, FaultSpec))
        except FaultError as error:
            raise _bad(str(error)) from error
        return json_response(_shown(fault.id, fault.since, fault.spec), 201)

    async def _one_fault(self, request: Request, number: str) -> Response:
        self._drop_spent()
        found = next((item for item in self._listed() if item["id"] == number), None)
        if found is None:
            raise failure(404, "NotFound", f"there is no active fault {number!r}")
        if request.method == "GET":
            return json_response(found)
        _only(request, "DELETE", "GET")
        if number in self._active:
            self._clear_api(number)
        else:
            self._world.faults.clear(number)
        return json_response(found)

    def _inject_api(self, spec: ApiFaultSpec) -> dict[str, Any]:
        mode = API_FAULTS[spec.type]
        if spec.count is not None and spec.count < 1:
            raise _bad("count: must be at least 1, or left out")
        if mode is FaultMode.SLOW and not 0 < spec.delay_ms <= 600_000:
            raise _bad("delay_ms: api-slow needs a delay between 1 and 600000")
        if mode is FaultMode.FORBIDDEN and not spec.resource:
            raise _bad("resource: api-403 needs the plural of a resource")
        filters = {"path": spec.path, "resource": spec.resource, "verb": spec.verb}
        fault = self._api_faults.add(
            ApiFault(
                mode,
                spec.count,
                **filters,
                delay_ms=spec.delay_ms,
                after_events=spec.after_events,
                mid_line=spec.mid_line,
                retry_after=spec.retry_after,
            )
        )
        number = f"api-fault-{next(self._numbers)}"
        since = rfc3339(self._world.clock.now())
        self._active[number] = (spec, fault, since)
        if spec.duration_seconds > 0:
            self._world.clock.call_later(spec.duration_seconds, lambda: self._clear_api(number))
        return _shown(number, since, spec)

    def _clear_api(self, number: str) -> None:
        known = self._active.pop(number, None)
        if known is not None:
            self._api_faults.remove(known[1])

    def _drop_spent(self) -> None:
        """Faults whose count is used up have left the API server's list by themselves."""
        in_force = {id(fault) for fault in self._api_faults.active}
        for number in [number for number, (_, fault, _) in self._active.items() if id(fault) not in in_force]:
            del self._active[number]

    async def _metrics(self, request: Request, _rest: str) -> Response:
        _only(request, "GET")
        return Response(200, self._world.exposition.text().encode(), CONTENT_TYPE)

    async def _node(self, request: Request, rest: str) -> Response:
        _only(request, "GET")
        name, _, part = rest.partition("/")
        node = self._world.registry.find("nodes", "", name) if part == "stats" else None
        if node is None:
            raise failure(404, "NotFound", f"there is no {request.path}; ask for {PREFIX}/nodes/NAME/stats")
        summary = self._world.node_stats.summary(node)
        if summary is None:
            raise failure(503, "ServiceUnavailable", f"the kubelet of {name} does not answer")
        return json_response(summary)

    async def _volume(self, request: Request, rest: str) -> Response:
        """GET: what a claim's volume holds; POST {"text": …} writes to it."""
        _only(request, "GET", "POST")
        namespace, _, claim = rest.partition("/")
        try:
            handle = self._world.volume_handle(namespace, claim)
        except KeyError as error:
            raise failure(404, "NotFound", f"no claim {rest} is bound to a volume of the CSI driver") from error
        if request.method == "POST":
            self._world.disks.write(handle, _decode(await request.body(), WriteRequest).text)
        held = self._world.disks.contents(handle)
        return json_response({"handle": handle, "revision": held.revision, "checksum": held.checksum})

    async def _backup(self, request: Request, rest: str) -> Response:
        """What the stand-in for Velero has stored of a backup."""
        _only(request, "GET")
        stored = self._world.backups.get(rest)
        if stored is None:
            raise failure(404, "NotFound", f"there is no stored backup {rest!r}")
        shown = {
            "name": stored.name,
            "location": stored.location,
            "checksum": stored.checksum(),
            "items": [item.label for item in stored.items],
            "snapshots": [
                {"namespace": one.namespace, "claim": one.claim, "handle": one.handle} for one in stored.snapshots
            ],
            "errors": list(stored.errors),
            "warnings": list(stored.warnings),
        }
        return json_response(shown)

    async def _restore(self, request: Request, rest: str) -> Response:
        """The warnings and errors of a finished restore, which its status only counts."""
        _only(request, "GET")
        results = self._world.backups.results.get(rest)
        if results is None:
            raise failure(404, "NotFound", f"there is no finished restore {rest!r}")
        return json_response({"name": rest, **results})


def _shown(number: str, since: str, spec: FaultSpec | ApiFaultSpec) -> dict[str, Any]:
    return {"id": number, "since": since, **msgspec.to_builtins(spec)}


def _only(request: Request, *methods: str) -> None:
    if request.method not in methods:
        allowed = ", ".join(methods)
        raise failure(405, "MethodNotAllowed", f"{request.path} takes {allowed}")


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise _bad(str(error)) from error
