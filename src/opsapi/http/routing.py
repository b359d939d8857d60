"""From method and raw path to the declaration that serves it, compiled once at start."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from opsapi.http.bodies import BodyDecoder
from opsapi.http.params import ParamsDecoder
from opsapi.http.projection import Projection
from opsapi.http.settings import HttpSettings
from opsapi.kit.endpoint import Bound, Endpoint, Handler, Idempotency, NoBody, Scope

_BRACES = re.compile(r"\{([a-z_]+)\}")


def path_names(path: str) -> tuple[str, ...]:
    return tuple(_BRACES.findall(path))


@dataclass(frozen=True, slots=True)
class Route:
    """A declaration with all that serving it needs, worked out ahead."""

    declaration: Endpoint
    handle: Handler
    per_minute: int
    params: ParamsDecoder
    body: BodyDecoder
    takes_body: bool
    keyed: bool
    projection: Projection | None
    scope_name: str | None
    """The path parameter that the scope is read from."""

    @classmethod
    def compile(cls, bound: Bound, settings: HttpSettings) -> "Route":
        """Raises TypeError where a declaration contradicts itself."""
        declared = bound.declaration
        names = path_names(declared.path)
        scope_name = {Scope.WORKSPACE: "workspace_id", Scope.APPLICATION: "application_id"}.get(declared.scope)
        if scope_name is not None and scope_name not in names:
            raise TypeError(f"{declared.name}: scope {declared.scope} needs {{{scope_name}}} in {declared.path}")
        if declared.method == "GET" and (declared.body is not NoBody or declared.idempotency is not Idempotency.SAFE):
            raise TypeError(f"{declared.name}: a GET takes no body and is SAFE")
        return cls(
            declaration=declared,
            handle=bound.handle,
            per_minute=settings.limits.get(declared.limit.name, declared.limit.per_minute),
            params=ParamsDecoder(declared.params, names, declared.name),
            body=BodyDecoder(declared.body, settings.body_max_depth),
            takes_body=declared.method != "GET",
            keyed=declared.idempotency in (Idempotency.KEYED, Idempotency.NATURAL),
            projection=Projection(declared.answer) if declared.fields else None,
            scope_name=scope_name,
        )


@dataclass(frozen=True, slots=True)
class Match:
    """`methods` are those of the path; `values` are its parameters, still percent-encoded."""

    methods: Mapping[str, Route]
    values: tuple[bytes, ...]


@dataclass(slots=True)
class _Node:
    literal: dict[bytes, "_Node"] = field(default_factory=dict)
    parameter: "_Node | None" = None
    methods: dict[str, Route] = field(default_factory=dict)


class Router:
    """Paths without parameters are one look-up; others walk a tree of segments, where a literal wins over a parameter.

    Matching is on the raw path, so an encoded slash never moves a segment's border.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._fixed: dict[bytes, Match] = {}
        self._root = _Node()
        for route in routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        node = self._root
        for part in route.declaration.path.encode().split(b"/"):
            if part.startswith(b"{"):
                if node.parameter is None:
                    node.parameter = _Node()
                node = node.parameter
            else:
                node = node.literal.setdefault(part, _Node())
        method = route.declaration.method
        if method in node.methods:
            raise TypeError(f"two endpoints serve {method} {route.declaration.path}")
        node.methods[method] = route
        if "{" not in route.declaration.path:
            self._fixed[route.declaration.path.encode()] = Match(node.methods, ())

    def match(self, raw_path: bytes) -> Match | None:
        return self._fixed.get(raw_path) or self._walk(self._root, raw_path.split(b"/"), 0, ())

    def _walk(self, node: _Node, parts: list[bytes], index: int, values: tuple[bytes, ...]) -> Match | None:
        if index == len(parts):
            return Match(node.methods, values) if node.methods else None
        literal = node.literal.get(parts[index])
        if literal is not None:
            found = self._walk(literal, parts, index + 1, values)
            if found is not None:
                return found
        if node.parameter is not None:
            return self._walk(node.parameter, parts, index + 1, (*values, parts[index]))
        return None
