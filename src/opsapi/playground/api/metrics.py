"""metrics.k8s.io/v1beta1, from an injected provider."""

from opsapi.playground.api.discovery import metrics_kinds
from opsapi.playground.api.listing import Lister
from opsapi.playground.api.providers import MetricsProvider
from opsapi.playground.api.request import Request, negotiate
from opsapi.playground.api.responses import Response, json_response, text_response
from opsapi.playground.api.selectors import label_predicate
from opsapi.playground.kinds import Kind
from opsapi.playground.machinery.status import method_not_allowed, no_such_resource, not_found
from opsapi.playground.registry import Obj


def serve(provider: MetricsProvider | None, lister: Lister, request: Request) -> Response:
    """503 without a provider, as an aggregated API whose backend is away. Raises ApiError."""
    if provider is None:
        return text_response("service unavailable\n", 503)
    target = request.target
    kind = next((one for one in metrics_kinds() if one.plural == target.resource), None)
    if kind is None or target.subresource:
        raise no_such_resource()
    if target.verb not in kind.verbs:
        raise method_not_allowed()
    found = provider.nodes() if kind.plural == "nodes" else provider.pods(target.namespace)
    listed = [{"kind": kind.kind, "apiVersion": kind.api_version, **one} for one in found]
    if target.name:
        return _one(lister, request, kind, listed)
    matches = label_predicate(request.param("labelSelector"))
    if matches is not None:
        listed = [one for one in listed if matches(one)]
    return _many(lister, request, kind, listed)


def _one(lister: Lister, request: Request, kind: Kind, listed: list[Obj]) -> Response:
    name = request.target.name
    obj = next((one for one in listed if one["metadata"]["name"] == name), None)
    if obj is None:
        raise not_found(kind, name)
    return lister.render_one(request, _plain(kind), negotiate(request.headers.get("accept", "")), obj)


def _many(lister: Lister, request: Request, kind: Kind, listed: list[Obj]) -> Response:
    rendering = negotiate(request.headers.get("accept", ""))
    if rendering.kind == "Table":
        return json_response(lister.table(request, _plain(kind), rendering, listed, {}, header=True))
    made = {"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": {}, "items": listed}
    return json_response(made)


def _plain(kind: Kind) -> Kind:
    """Served as it is: nothing stores it, so nothing converts it."""
    return Kind(
        kind.group,
        kind.version,
        kind.kind,
        kind.plural,
        "",
        kind.namespaced,
        stored_group=kind.group,
        stored_version=kind.version,
    )
