"""Which columns each kind has, and how a list becomes a Table."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from opsapi.playground.api.tables import cells, workloads
from opsapi.playground.api.tables.ages import age
from opsapi.playground.api.tables.parts import Cells
from opsapi.playground.api.tables.pods import pod_cells
from opsapi.playground.kinds import Column, Kind
from opsapi.playground.registry import Obj


@dataclass(frozen=True, slots=True)
class Columns:
    definitions: list[Obj]
    cells: Cells


def _definition(name: str, kind: str = "string", priority: int = 0, description: str = "") -> Obj:
    # The name column is the one whose cells kubectl prefixes with the kind when it lists several.
    column_format = "name" if name == "Name" else ""
    return {"name": name, "type": kind, "format": column_format, "description": description, "priority": priority}


def _columns(read: Cells, names: str) -> Columns:
    """`names` are separated by |; `#` marks integers, `?` booleans, `@` dates and `+` what only -o wide shows."""
    definitions = []
    for name in names.split("|"):
        marks = {"#": "integer", "?": "boolean", "@": "date"}
        priority = 1 if name.startswith("+") else 0
        bare = name.lstrip("+")
        kind = marks.get(bare[0], "string")
        definitions.append(_definition(bare.lstrip("#?@"), kind, priority))
    return Columns(definitions, read)


_WORKLOAD = "+Containers|+Images|+Selector"
_DEFAULT = _columns(cells.named, "Name|@Created At")
_COLUMNS: dict[tuple[str, str], Columns] = {
    ("", "namespaces"): _columns(cells.namespace, "Name|Status|Age"),
    ("", "nodes"): _columns(
        cells.node,
        "Name|Status|Roles|Age|Version|+Internal-IP|+External-IP|+OS-Image|+Kernel-Version|+Container-Runtime",
    ),
    ("", "pods"): _columns(pod_cells, "Name|Ready|Status|Restarts|Age|+IP|+Node|+Nominated Node|+Readiness Gates"),
    ("", "replicationcontrollers"): _columns(
        workloads.replication_controller, f"Name|#Desired|#Current|#Ready|Age|{_WORKLOAD}"
    ),
    ("", "services"): _columns(cells.service, "Name|Type|Cluster-IP|External-IP|Port(s)|Age|+Selector"),
    ("", "endpoints"): _columns(cells.endpoints, "Name|Endpoints|Age"),
    ("", "configmaps"): _columns(cells.config_map, "Name|Data|Age"),
    ("", "secrets"): _columns(cells.secret, "Name|Type|Data|Age"),
    ("", "serviceaccounts"): _columns(cells.name_and_age, "Name|Age"),
    ("", "persistentvolumeclaims"): _columns(
        cells.claim,
        "Name|Status|Volume|Capacity|Access Modes|StorageClass|VolumeAttributesClass|Age|+VolumeMode",
    ),
    ("", "persistentvolumes"): _columns(
        cells.volume,
        "Name|Capacity|Access Modes|Reclaim Policy|Status|Claim|StorageClass|VolumeAttributesClass"
        "|Reason|Age|+VolumeMode",
    ),
    ("", "resourcequotas"): _columns(cells.quota, "Name|Request|Limit|Age"),
    ("", "events"): _columns(
        cells.event, "Last Seen|Type|Reason|Object|+Subobject|+Source|Message|+First Seen|+Count|+Name"
    ),
    ("apps", "deployments"): _columns(workloads.deployment, f"Name|Ready|Up-to-date|Available|Age|{_WORKLOAD}"),
    ("apps", "replicasets"): _columns(workloads.replica_set, f"Name|#Desired|#Current|#Ready|Age|{_WORKLOAD}"),
    ("apps", "statefulsets"): _columns(workloads.stateful_set, "Name|Ready|Age|+Containers|+Images"),
    ("apps", "daemonsets"): _columns(
        workloads.daemon_set,
        f"Name|#Desired|#Current|#Ready|#Up-to-date|#Available|Node Selector|Age|{_WORKLOAD}",
    ),
    ("apps", "controllerrevisions"): _columns(cells.controller_revision, "Name|Controller|Revision|Age"),
    ("batch", "jobs"): _columns(workloads.job, f"Name|Status|Completions|Duration|Age|{_WORKLOAD}"),
    ("batch", "cronjobs"): _columns(
        workloads.cron_job, f"Name|Schedule|Timezone|?Suspend|#Active|Last Schedule|Age|{_WORKLOAD}"
    ),
    ("autoscaling", "horizontalpodautoscalers"): _columns(
        workloads.autoscaler, "Name|Reference|Targets|MinPods|MaxPods|Replicas|Age"
    ),
    ("autoscaling", "scales"): _columns(workloads.scale, "Name|#Desired|#Available|Age"),
    ("discovery.k8s.io", "endpointslices"): _columns(cells.endpoint_slice, "Name|AddressType|Ports|Endpoints|Age"),
    ("policy", "poddisruptionbudgets"): _columns(
        cells.disruption_budget, "Name|Min Available|Max Unavailable|#Allowed Disruptions|Age"
    ),
    ("networking.k8s.io", "ingresses"): _columns(cells.ingress, "Name|Class|Hosts|Address|Ports|Age"),
    ("networking.k8s.io", "networkpolicies"): _columns(cells.network_policy, "Name|Pod-Selector|Age"),
    ("storage.k8s.io", "storageclasses"): _columns(
        cells.storage_class, "Name|Provisioner|ReclaimPolicy|VolumeBindingMode|AllowVolumeExpansion|Age"
    ),
    ("rbac.authorization.k8s.io", "rolebindings"): _columns(
        cells.binding, "Name|Role|Age|+Users|+Groups|+ServiceAccounts"
    ),
    ("rbac.authorization.k8s.io", "clusterrolebindings"): _columns(
        cells.binding, "Name|Role|Age|+Users|+Groups|+ServiceAccounts"
    ),
    ("coordination.k8s.io", "leases"): _columns(cells.lease, "Name|Holder|Age"),
    ("scheduling.k8s.io", "priorityclasses"): _columns(
        cells.priority_class, "Name|Value|Global-Default|Age|PreemptionPolicy"
    ),
    ("metrics.k8s.io", "nodes"): _columns(cells.node_metrics, "Name|cpu|memory|Window"),
    ("metrics.k8s.io", "pods"): _columns(cells.pod_metrics, "Name|cpu|memory|Window"),
}


def columns_of(kind: Kind) -> Columns:
    """Events keep core's columns in both groups: rows are made of the stored form."""
    if kind.custom:
        return _custom(kind)
    return _COLUMNS.get((kind.group, kind.plural)) or _COLUMNS.get((kind.stored_group, kind.plural)) or _DEFAULT


def _custom(kind: Kind) -> Columns:
    if not kind.columns:
        return _columns(cells.name_and_age, "Name|Age")
    definitions = [_definition("Name")]
    for column in kind.columns:
        told = column.description or f"Custom resource definition column (in JSONPath format): {column.json_path}"
        made = _definition(column.name, column.type, column.priority, told)
        made["format"] = column.format
        definitions.append(made)
    readers = [(column, _path(column.json_path)) for column in kind.columns]

    def read(obj: Obj, now: datetime) -> list[Any]:
        return [obj["metadata"]["name"], *(_cell(obj, column, path, now) for column, path in readers)]

    return Columns(definitions, read)


_STEP = re.compile(r"\.?(?:\[\?\(@\.([\w.]+)\s*==\s*[\"']([^\"']*)[\"']\)\]|\[(\d+|\*)\]|((?:\\.|[^.\[\]])+))")


def _path(json_path: str) -> list[Any]:
    steps: list[Any] = []
    for match in _STEP.finditer(json_path.strip("{}")):
        if match.group(1):
            steps.append((match.group(1), match.group(2)))
        elif match.group(3):
            steps.append(match.group(3) if match.group(3) == "*" else int(match.group(3)))
        elif match.group(4):
            steps.append(match.group(4).replace("\\.", "."))
    return steps


def _found(values: list[Any], step: Any) -> list[Any]:
    made: list[Any] = []
    for value in values:
        if isinstance(step, tuple) and isinstance(value, list):
            made.extend(one for one in value if isinstance(one, dict) and str(one.get(step[0])) == step[1])
        elif step == "*" and isinstance(value, list):
            made.extend(value)
        elif _has(value, step):
            made.append(value[step])
    return made


def _has(value: Any, step: Any) -> bool:
    if isinstance(value, list):
        return isinstance(step, int) and step < len(value)
    return isinstance(value, dict) and isinstance(step, str) and step in value


def _cell(obj: Obj, column: Column, steps: list[Any], now: datetime) -> Any:
    values: list[Any] = [obj]
    for step in steps:
        values = _found(values, step)
    if not values or values[0] is None:
        return None
    value = values[0]
    if column.type == "date":
        return age(value, now) if isinstance(value, str) else "<unknown>"
    if column.type == "integer":
        return value if isinstance(value, int) else None
    if column.type in ("number", "boolean"):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def table(
    columns: Columns,
    rows: Iterable[tuple[Obj, Obj | None]],
    metadata: Obj,
    version: str,
    now: datetime,
    *,
    header: bool,
) -> Obj:
    """`rows` pairs each object with what its row shows of it: an object, or None for nothing."""
    made = [
        {"cells": columns.cells(obj, now), "object": shown} if shown is not None else {"cells": columns.cells(obj, now)}
        for obj, shown in rows
    ]
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": metadata,
        "columnDefinitions": columns.definitions if header else None,
        "rows": made or None,
    }
