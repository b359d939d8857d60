"""New sizes as patches of a workload's template: for the API server, for a repository, and back. Pure."""

from collections.abc import Iterable

from opsapi.applications.ports import OPERATION_ANNOTATION
from opsapi.playbooks.optimizing.model import AppOrder, Quantities, same
from opsapi.workspaces.objects import Workload
from opsapi.workspaces.writing import JsonObject

_PLACES = {
    "cpu_request": ("requests", "cpu"),
    "memory_request": ("requests", "memory"),
    "cpu_limit": ("limits", "cpu"),
    "memory_limit": ("limits", "memory"),
}


def template_patch(sizes: Iterable[tuple[str, Quantities, Quantities]], operation_id: str) -> JsonObject:
    """A strategic merge patch from (container, what is set, what is wanted): only fields that differ; null takes one
    away."""
    containers = []
    for name, held, wanted in sizes:
        resources: JsonObject = {}
        for field, (bound, resource) in _PLACES.items():
            new = getattr(wanted, field)
            if new != getattr(held, field):
                resources.setdefault(bound, {})[resource] = new
        containers.append({"name": name, "resources": resources})
    return {
        "metadata": {"annotations": {OPERATION_ANNOTATION: operation_id}},
        "spec": {"template": {"spec": {"containers": containers}}},
    }


def forward(order: AppOrder, operation_id: str) -> JsonObject:
    return template_patch(((one.name, one.before, one.after) for one in order.containers), operation_id)


def backward(order: AppOrder, operation_id: str) -> JsonObject:
    return template_patch(((one.name, one.after, one.before) for one in order.containers), operation_id)


def stands(workload: Workload, sizes: dict[str, Quantities]) -> bool:
    """Whether the template's containers are set to exactly these."""
    held = {
        one.name: Quantities(
            cpu_request=one.resources.requests.get("cpu"),
            memory_request=one.resources.requests.get("memory"),
            cpu_limit=one.resources.limits.get("cpu"),
            memory_limit=one.resources.limits.get("memory"),
        )
        for one in workload.spec.template.spec.containers
    }
    return all(same(held.get(name), wanted) for name, wanted in sizes.items())


def yaml_patch(order: AppOrder) -> str:
    """What to commit where a GitOps tool keeps the application; a strategic merge patch too."""
    lines = [
        "apiVersion: apps/v1",
        f"kind: {order.kind}",
        "metadata:",
        f"  name: {order.name}",
        f"  namespace: {order.namespace}",
        "spec:",
        "  template:",
        "    spec:",
        "      containers:",
    ]
    for one in order.containers:
        lines += [f"      - name: {one.name}", "        resources:"]
        for bound in ("requests", "limits"):
            fields = [
                (resource, getattr(one.after, field))
                for field, (place, resource) in _PLACES.items()
                if place == bound and getattr(one.after, field) != getattr(one.before, field)
            ]
            if fields:
                lines.append(f"          {bound}:")
                lines += [f"            {resource}: {value}" for resource, value in fields]
    return "\n".join(lines) + "\n"
