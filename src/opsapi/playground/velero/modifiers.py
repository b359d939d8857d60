"""Resource modifiers: merge patches by which a restore changes what it creates. After internal/resourcemodifiers.

JSON and strategic merge patches, regular expressions of names and `matches` are not modelled: a rule with one of them
is an error of the restore, never passed over.
"""

import yaml

from opsapi.playground.machinery.patches import merge
from opsapi.playground.registry import Obj, Registry
from opsapi.playground.selection import matches
from opsapi.playground.velero.storage import NAMESPACE

_KNOWN = {"conditions", "mergePatches"}
_CONDITIONS = {"groupResource", "namespaces", "labelSelector"}


class ModifierError(Exception):
    """The text is what the restore's validation says."""


def rules_of(registry: Registry, spec: Obj) -> list[Obj]:
    """The rules of the ConfigMap that a restore's spec names. Raises ModifierError."""
    reference = spec.get("resourceModifier")
    if not reference:
        return []
    name = reference.get("name", "")
    found = registry.find("configmaps", NAMESPACE, name)
    if found is None:
        raise ModifierError(f"failed to get resource modifiers configmap {NAMESPACE}/{name}")
    data = found.get("data") or {}
    if len(data) != 1:
        raise ModifierError(f"illegal resource modifiers {NAMESPACE}/{name} configmap")
    document = yaml.safe_load(next(iter(data.values())))
    if not isinstance(document, dict) or document.get("version") != "v1":
        raise ModifierError("unsupported resource modifiers version")
    rules = list(document.get("resourceModifierRules") or ())
    for rule in rules:
        unknown = (set(rule) - _KNOWN) | (set(rule.get("conditions") or {}) - _CONDITIONS)
        if unknown:
            told = ", ".join(sorted(unknown))
            raise ModifierError(f"the playground's Velero does not know {told} of resource modifiers")
    return rules


def modified(rules: list[Obj], resource: str, source: str, obj: Obj) -> Obj:
    """The object after every rule whose conditions it meets; `source` is the namespace that it came from."""
    for rule in rules:
        conditions = rule.get("conditions") or {}
        if conditions.get("groupResource") != resource:
            continue
        if conditions.get("namespaces") and source not in conditions["namespaces"]:
            continue
        selector = conditions.get("labelSelector")
        if selector and not matches(selector, obj["metadata"].get("labels")):
            continue
        for patch in rule.get("mergePatches") or ():
            obj = merge(obj, yaml.safe_load(patch["patchData"]))
    return obj
