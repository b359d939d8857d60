"""What pods and pod templates have to satisfy."""

from decimal import Decimal

from opsapi.kit.quantity import parse_quantity
from opsapi.playground.machinery import names
from opsapi.playground.machinery.status import (
    Cause,
    duplicate,
    forbidden_field,
    invalid_value,
    not_found_field,
    not_supported,
    required,
)
from opsapi.playground.registry import Obj

_PULL_POLICIES = ["Always", "IfNotPresent", "Never"]
_RESTART_POLICIES = ["Always", "OnFailure", "Never"]
_DNS_POLICIES = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]


def template_causes(at: str, template: Obj, restart_policies: tuple[str, ...]) -> list[Cause]:
    causes: list[Cause] = []
    for key, value in ((template.get("metadata") or {}).get("labels") or {}).items():
        causes.extend(invalid_value(f"{at}.labels", key, why) for why in names.qualified(key))
        causes.extend(invalid_value(f"{at}.labels", value, why) for why in names.label_value(value))
    spec = template.get("spec") or {}
    causes += pod_spec_causes(f"{at}.spec", spec)
    policy = spec.get("restartPolicy")
    if policy in _RESTART_POLICIES and policy not in restart_policies:
        causes.append(not_supported(f"{at}.spec.restartPolicy", policy, list(restart_policies)))
    return causes


def pod_spec_causes(at: str, spec: Obj) -> list[Cause]:
    causes: list[Cause] = []
    volumes = _volumes(at, spec.get("volumes") or [], causes)
    if not spec.get("containers"):
        causes.append(required(f"{at}.containers"))
    seen: set[str] = set()
    for group in ("initContainers", "containers"):
        for index, one in enumerate(spec.get(group) or []):
            causes += _container(f"{at}.{group}[{index}]", one, seen, volumes)
    policy = spec.get("restartPolicy")
    if policy not in _RESTART_POLICIES:
        causes.append(not_supported(f"{at}.restartPolicy", policy, _RESTART_POLICIES))
    if spec.get("dnsPolicy") not in _DNS_POLICIES:
        causes.append(not_supported(f"{at}.dnsPolicy", spec.get("dnsPolicy"), _DNS_POLICIES))
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0:
        why = "must be greater than or equal to 0"
        causes.append(invalid_value(f"{at}.terminationGracePeriodSeconds", grace, why))
    return causes


def _volumes(at: str, volumes: list[Obj], causes: list[Cause]) -> set[str]:
    found: set[str] = set()
    for index, volume in enumerate(volumes):
        where = f"{at}.volumes[{index}].name"
        name = volume.get("name", "")
        if not name:
            causes.append(required(where))
        elif name in found:
            causes.append(duplicate(where, name))
        else:
            causes.extend(invalid_value(where, name, why) for why in names.label(name))
        found.add(name)
    return found


def _container(at: str, one: Obj, seen: set[str], volumes: set[str]) -> list[Cause]:
    causes: list[Cause] = []
    name = one.get("name", "")
    if not name:
        causes.append(required(f"{at}.name"))
    elif name in seen:
        causes.append(duplicate(f"{at}.name", name))
    else:
        causes.extend(invalid_value(f"{at}.name", name, why) for why in names.label(name))
    seen.add(name)
    if not one.get("image"):
        causes.append(required(f"{at}.image"))
    elif one["image"] != one["image"].strip():
        causes.append(invalid_value(f"{at}.image", one["image"], "must not have leading or trailing whitespace"))
    if one.get("imagePullPolicy") not in _PULL_POLICIES:
        causes.append(not_supported(f"{at}.imagePullPolicy", one.get("imagePullPolicy"), _PULL_POLICIES))
    causes += _ports(at, one.get("ports") or [])
    for index, env in enumerate(one.get("env") or []):
        if not env.get("name"):
            causes.append(required(f"{at}.env[{index}].name"))
    for index, mount in enumerate(one.get("volumeMounts") or []):
        if mount.get("name") not in volumes:
            causes.append(not_found_field(f"{at}.volumeMounts[{index}].name", mount.get("name")))
        if not mount.get("mountPath"):
            causes.append(required(f"{at}.volumeMounts[{index}].mountPath"))
    return causes + resource_causes(f"{at}.resources", one.get("resources") or {})


def _ports(at: str, ports: list[Obj]) -> list[Cause]:
    causes: list[Cause] = []
    taken: set[str] = set()
    for index, port in enumerate(ports):
        number = port.get("containerPort", 0)
        if not 1 <= number <= 65535:
            where = f"{at}.ports[{index}].containerPort"
            causes.append(invalid_value(where, number, "must be between 1 and 65535, inclusive"))
        name = port.get("name")
        if name and name in taken:
            causes.append(duplicate(f"{at}.ports[{index}].name", name))
        if name:
            taken.add(name)
        if port.get("protocol") not in ("TCP", "UDP", "SCTP"):
            where = f"{at}.ports[{index}].protocol"
            causes.append(not_supported(where, port.get("protocol"), ["SCTP", "TCP", "UDP"]))
    return causes


def resource_causes(at: str, held: Obj) -> list[Cause]:
    causes: list[Cause] = []
    limits, requests = held.get("limits") or {}, held.get("requests") or {}
    for part, values in (("limits", limits), ("requests", requests)):
        for name, text in values.items():
            if parse_quantity(text) < Decimal(0):
                why = "must be greater than or equal to 0"
                causes.append(invalid_value(f"{at}.{part}[{name}]", text, why))
            elif (
                name not in ("cpu", "memory", "ephemeral-storage")
                and "/" not in name
                and not name.startswith("hugepages-")
            ):
                why = "must be a standard resource type or fully qualified"
                causes.append(invalid_value(f"{at}.{part}[{name}]", name, why))
    for name, text in requests.items():
        if name in limits and parse_quantity(text) > parse_quantity(limits[name]):
            why = f"must be less than or equal to {name} limit of {limits[name]}"
            causes.append(invalid_value(f"{at}.requests", text, why))
    return causes


_POD_MUTABLE = ("activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations", "schedulingGates", "nodeName")


def pod_update_causes(obj: Obj, old: Obj) -> list[Cause]:
    """Only images, deadlines, added tolerations and the like may change on a pod."""
    new, before = _without_mutable(obj["spec"]), _without_mutable(old["spec"])
    bound = old["spec"].get("nodeName")
    if bound and obj["spec"].get("nodeName") != bound:
        return [forbidden_field("spec.nodeName", "may not be changed once set")]
    if new != before:
        why = (
            "pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` "
            "(only additions to existing tolerations),`spec.terminationGracePeriodSeconds` "
            "(allow it to be set to 1 if it was previously negative)"
        )
        return [forbidden_field("spec", why)]
    return []


def _without_mutable(spec: Obj) -> Obj:
    made = {key: value for key, value in spec.items() if key not in _POD_MUTABLE}
    for group in ("containers", "initContainers"):
        if made.get(group):
            made[group] = [{key: value for key, value in one.items() if key != "image"} for one in made[group]]
    return made
