"""ResourceQuotas: what a shared workspace may use, and when it is nearly used up."""

from collections.abc import Iterable

import msgspec

from opsapi.kit.quantity import parse_quantity, percentage
from opsapi.workspaces.findings import Finding, FindingType
from opsapi.workspaces.objects import RESOURCE_QUOTA, ResourceQuota
from opsapi.workspaces.pods import quantity_bytes, quantity_millicores

NEARLY_FULL = 90.0
"""Percent of a quota used from which it is a finding."""
_CPU = ("limits.cpu", "requests.cpu", "cpu")
_MEMORY = ("limits.memory", "requests.memory", "memory")
_STORAGE = ("requests.storage",)


class QuotaTotals(msgspec.Struct, frozen=True):
    """Sums over the namespaces that a quota bounds, each with those namespaces; None where no quota bounds it."""

    cpu: int | None
    memory: int | None
    storage: int | None
    cpu_in: frozenset[str]
    memory_in: frozenset[str]


def quota_totals(quotas: Iterable[ResourceQuota]) -> QuotaTotals:
    """The limits (else requests) that quotas allow; of several quotas in one namespace the tightest binds."""
    bounds: tuple[dict[str, int], ...] = ({}, {}, {})
    for quota in quotas:
        if quota.spec.is_scoped:
            continue  # it bounds only some of the pods
        for held, names in zip(bounds, (_CPU, _MEMORY, _STORAGE), strict=True):
            name = next((n for n in names if n in quota.spec.hard), None)
            if name is None:
                continue
            text = quota.spec.hard[name]
            value = quantity_millicores(text) if held is bounds[0] else quantity_bytes(text)
            namespace = quota.metadata.namespace
            held[namespace] = min(value, held.get(namespace, value))
    cpu, memory, storage = bounds
    return QuotaTotals(
        sum(cpu.values()) if cpu else None,
        sum(memory.values()) if memory else None,
        sum(storage.values()) if storage else None,
        frozenset(cpu),
        frozenset(memory),
    )


def quota_findings(quota: ResourceQuota) -> tuple[Finding, ...]:
    """The quota's fullest resource, where it is nearly or fully used."""
    fullest: tuple[float, str] | None = None
    for name, hard in quota.status.hard.items():
        share = _share(quota.status.used.get(name, "0"), hard)
        if (
            share is not None
            and share >= NEARLY_FULL
            and (fullest is None or (-share, name) < (-fullest[0], fullest[1]))
        ):
            fullest = share, name
    if fullest is None:
        return ()
    share, name = fullest
    used, hard = quota.status.used.get(name, "0"), quota.status.hard[name]
    kind = FindingType.QUOTA_FULL if share >= 100 else FindingType.QUOTA_NEARLY_FULL
    named = RESOURCE_QUOTA.kind, quota.metadata.namespace, quota.metadata.name
    return (Finding(kind, *named, f"{name}: {used} of {hard} used ({share} %)"),)


def _share(used: str, hard: str) -> float | None:
    try:
        return percentage(float(parse_quantity(used)), float(parse_quantity(hard)))
    except ValueError:
        return None
