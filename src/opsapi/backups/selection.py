"""Which objects belong to an application: what its pods refer to, and what refers to its pods. Pure, over JSON."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from opsapi.workspaces.objects import LabelSelector
from opsapi.workspaces.writing import JsonObject

_ROOT_CA = "kube-root-ca.crt"
"""Kubernetes puts this ConfigMap into every namespace by itself."""
_DEFAULT_ACCOUNT = "default"


class References(msgspec.Struct, frozen=True):
    """Names in the application's own namespace, each once, in order."""

    config_maps: tuple[str, ...]
    secrets: tuple[str, ...]
    claims: tuple[str, ...]
    service_account: str | None


def pod_template_of(workload: JsonObject) -> JsonObject:
    spec = workload.get("spec") or {}
    if workload.get("kind") == "CronJob":
        spec = ((spec.get("jobTemplate") or {}).get("spec")) or {}
    template: JsonObject = spec.get("template") or {}
    return template


def pod_labels_of(workload: JsonObject) -> dict[str, str]:
    return dict((pod_template_of(workload).get("metadata") or {}).get("labels") or {})


def references(workload: JsonObject) -> References:
    """What the pod template names: in volumes, environments, pull secrets and its ServiceAccount."""
    spec = pod_template_of(workload).get("spec") or {}
    maps, secrets, claims = set[str](), set[str](), set[str]()
    for source in _volume_sources(spec.get("volumes") or ()):
        maps |= _named(source.get("configMap"), "name")
        secrets |= _named(source.get("secret"), "secretName", "name")
        claims |= _named(source.get("persistentVolumeClaim"), "claimName")
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        for one in container.get("envFrom") or ():
            maps |= _named(one.get("configMapRef"), "name")
            secrets |= _named(one.get("secretRef"), "name")
        for one in container.get("env") or ():
            value = one.get("valueFrom") or {}
            maps |= _named(value.get("configMapKeyRef"), "name")
            secrets |= _named(value.get("secretKeyRef"), "name")
    secrets |= {one["name"] for one in spec.get("imagePullSecrets") or () if one.get("name")}
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    return References(
        tuple(sorted(maps - {_ROOT_CA})),
        tuple(sorted(secrets)),
        tuple(sorted(claims)),
        account if account and account != _DEFAULT_ACCOUNT else None,
    )


def _volume_sources(volumes: Iterable[JsonObject]) -> Iterator[JsonObject]:
    """The volumes themselves, and each source of projected ones."""
    for volume in volumes:
        yield volume
        yield from (volume.get("projected") or {}).get("sources") or ()


def _named(source: Mapping[str, Any] | None, *keys: str) -> set[str]:
    return {str(source[key]) for key in keys if source.get(key)} if source else set()


def template_claims(workload: JsonObject, claims: Iterable[JsonObject]) -> list[str]:
    """The claims that a StatefulSet's volumeClaimTemplates have made: `<template>-<set>-<ordinal>`."""
    if workload.get("kind") != "StatefulSet":
        return []
    templates = (workload.get("spec") or {}).get("volumeClaimTemplates") or ()
    prefixes = [f"{one['metadata']['name']}-{workload['metadata']['name']}-" for one in templates]
    names = (claim["metadata"]["name"] for claim in claims)
    return sorted(n for n in names if any(n.startswith(p) and re.fullmatch(r"\d+", n[len(p) :]) for p in prefixes))


def services_of(workload: JsonObject, services: Iterable[JsonObject]) -> list[JsonObject]:
    """Those that select its pods, and the one that governs a StatefulSet."""
    labels = pod_labels_of(workload)
    governing = (workload.get("spec") or {}).get("serviceName") if workload.get("kind") == "StatefulSet" else None
    found = []
    for service in services:
        selector = (service.get("spec") or {}).get("selector") or {}
        chosen = bool(selector) and all(labels.get(key) == value for key, value in selector.items())
        if chosen or (governing and service["metadata"]["name"] == governing):
            found.append(service)
    return found


def ingresses_of(services: Iterable[str], ingresses: Iterable[JsonObject]) -> list[JsonObject]:
    """Those that send traffic to one of the services."""
    wanted = set(services)
    return [one for one in ingresses if wanted & _backends(one)]


def _backends(ingress: JsonObject) -> set[str]:
    spec = ingress.get("spec") or {}
    backends = [spec.get("defaultBackend") or {}]
    for rule in spec.get("rules") or ():
        backends += [path.get("backend") or {} for path in (rule.get("http") or {}).get("paths") or ()]
    return {str(one["service"]["name"]) for one in backends if (one.get("service") or {}).get("name")}


def certificates_of(ingresses: Iterable[JsonObject]) -> list[str]:
    """The Secrets with the ingresses' TLS certificates."""
    return sorted(
        {
            str(one["secretName"])
            for ingress in ingresses
            for one in (ingress.get("spec") or {}).get("tls") or ()
            if one.get("secretName")
        }
    )


def pull_secrets_of(account: JsonObject) -> list[str]:
    return sorted(str(one["name"]) for one in account.get("imagePullSecrets") or () if one.get("name"))


def autoscalers_of(workload: JsonObject, autoscalers: Iterable[JsonObject]) -> list[JsonObject]:
    kind, name = workload.get("kind"), workload["metadata"]["name"]
    return [
        one
        for one in autoscalers
        if (target := (one.get("spec") or {}).get("scaleTargetRef") or {}).get("kind") == kind
        and target.get("name") == name
    ]


def budgets_of(workload: JsonObject, budgets: Iterable[JsonObject]) -> list[JsonObject]:
    """Those that select its pods; one that selects everything belongs to the namespace, not to the application."""
    labels = pod_labels_of(workload)
    return [
        one
        for one in budgets
        if (selector := (one.get("spec") or {}).get("selector"))
        and msgspec.convert(selector, LabelSelector).matches(labels)
    ]
