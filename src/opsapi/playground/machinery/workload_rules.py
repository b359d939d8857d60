"""What workloads' specs have to satisfy."""

import re
from typing import TYPE_CHECKING

from opsapi.playground.machinery.label_selectors import matches, selector_causes
from opsapi.playground.machinery.pod_rules import template_causes
from opsapi.playground.machinery.status import Cause, forbidden_field, invalid_value, not_supported, required
from opsapi.playground.registry import Obj

if TYPE_CHECKING:
    from opsapi.playground.machinery.registry import ObjectRegistry

_NEGATIVE = "must be greater than or equal to 0"
IMMUTABLE = "field is immutable"


def non_negative(field: str, value: int | None) -> list[Cause]:
    return [invalid_value(field, value, _NEGATIVE)] if value is not None and value < 0 else []


def _selected_template(spec: Obj) -> list[Cause]:
    causes: list[Cause] = []
    selector, template = spec.get("selector"), spec.get("template") or {}
    if selector is None:
        causes.append(required("spec.selector"))
    else:
        causes += selector_causes("spec.selector", selector)
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            why = "empty selector is invalid for deployment"
            causes.append(invalid_value("spec.selector", selector, why))
        elif not causes:
            labels = (template.get("metadata") or {}).get("labels") or {}
            if not matches(selector, labels):
                why = "`selector` does not match template `labels`"
                causes.append(invalid_value("spec.template.metadata.labels", labels, why))
    claims = [{"name": one["metadata"].get("name"), "emptyDir": {}} for one in spec.get("volumeClaimTemplates") or []]
    if claims:
        # A StatefulSet's pods get these volumes, so its containers may mount them.
        pod = template.get("spec") or {}
        template = {**template, "spec": {**pod, "volumes": [*(pod.get("volumes") or []), *claims]}}
    return causes + template_causes("spec.template", template, ("Always",))


def deployment(_: "ObjectRegistry", obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    causes = non_negative("spec.replicas", spec.get("replicas"))
    causes += _selected_template(spec)
    causes += _rolling(spec.get("strategy") or {})
    causes += non_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    causes += non_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    causes += non_negative("spec.progressDeadlineSeconds", spec.get("progressDeadlineSeconds"))
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None and deadline <= spec.get("minReadySeconds", 0):
        causes.append(invalid_value("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
    return causes


def _rolling(strategy: Obj) -> list[Cause]:
    kind = strategy.get("type")
    if kind not in ("RollingUpdate", "Recreate"):
        return [not_supported("spec.strategy.type", kind, ["Recreate", "RollingUpdate"])]
    rolling = strategy.get("rollingUpdate")
    if kind == "Recreate":
        if rolling is not None:
            why = "may not be specified when strategy `type` is 'Recreate'"
            return [forbidden_field("spec.strategy.rollingUpdate", why)]
        return []
    causes = int_or_percent("spec.strategy.rollingUpdate.maxUnavailable", (rolling or {}).get("maxUnavailable"))
    causes += int_or_percent("spec.strategy.rollingUpdate.maxSurge", (rolling or {}).get("maxSurge"))
    held = rolling or {}
    if not causes and _is_zero(held.get("maxUnavailable")) and _is_zero(held.get("maxSurge")):
        why = "may not be 0 when `maxSurge` is 0"
        causes.append(invalid_value("spec.strategy.rollingUpdate.maxUnavailable", held["maxUnavailable"], why))
    return causes


def _is_zero(value: int | str | None) -> bool:
    return value in (0, "0", "0%")


def int_or_percent(field: str, value: int | str | None) -> list[Cause]:
    if isinstance(value, int):
        return non_negative(field, value)
    if isinstance(value, str) and not re.fullmatch(r"[0-9]+%", value):
        why = (
            "a valid percent string must be a numeric string followed by an ending '%' "
            "(e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
        )
        return [invalid_value(field, value, why)]
    return []


def replica_set(_: "ObjectRegistry", obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    return non_negative("spec.replicas", spec.get("replicas")) + _selected_template(spec)


def replication_controller(_: "ObjectRegistry", obj: Obj) -> list[Cause]:
    return non_negative("spec.replicas", (obj.get("spec") or {}).get("replicas"))


def daemon_set(_: "ObjectRegistry", obj: Obj) -> list[Cause]:
    return _selected_template(obj["spec"])


def immutable_selector(obj: Obj, old: Obj) -> list[Cause]:
    selector = obj["spec"].get("selector")
    if selector != old["spec"].get("selector"):
        return [invalid_value("spec.selector", selector, IMMUTABLE)]
    return []


_STATEFUL_MUTABLE = {
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
}


def stateful_update(obj: Obj, old: Obj) -> list[Cause]:
    new, before = obj["spec"], old["spec"]
    changed = {key for key in (*new, *before) if new.get(key) != before.get(key)}
    if changed - _STATEFUL_MUTABLE:
        why = (
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
            "'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and "
            "'minReadySeconds' are forbidden"
        )
        return [forbidden_field("spec", why)]
    return []


def job(_: "ObjectRegistry", obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    causes: list[Cause] = []
    for name in ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"):
        causes += non_negative(f"spec.{name}", spec.get(name))
    return causes + template_causes("spec.template", spec.get("template") or {}, ("OnFailure", "Never"))


def job_update(obj: Obj, old: Obj) -> list[Cause]:
    causes: list[Cause] = []
    for name in ("completions", "selector", "template", "completionMode"):
        new, before = obj["spec"].get(name), old["spec"].get(name)
        if new != before and not (name == "template" and old["spec"].get("suspend")):
            causes.append(invalid_value(f"spec.{name}", new, IMMUTABLE))
    return causes


_CRON_FIELD = r"(\*|\?|[0-9A-Za-z]+(-[0-9A-Za-z]+)?)(/[0-9]+)?"
_CRON = re.compile(
    r"(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|@every .+|"
    rf"({_CRON_FIELD}(,{_CRON_FIELD})*\s+){{4}}{_CRON_FIELD}(,{_CRON_FIELD})*)"
)


def cron_job(_: "ObjectRegistry", obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    causes: list[Cause] = []
    schedule = spec.get("schedule", "")
    if not schedule:
        causes.append(required("spec.schedule"))
    elif not _CRON.fullmatch(schedule.strip()):
        fields = schedule.split()
        why = "failed to parse"
        if len(fields) != 5:
            why = f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
        causes.append(invalid_value("spec.schedule", schedule, why))
    if spec.get("concurrencyPolicy") not in ("Allow", "Forbid", "Replace"):
        value = spec.get("concurrencyPolicy")
        causes.append(not_supported("spec.concurrencyPolicy", value, ["Allow", "Forbid", "Replace"]))
    job = (spec.get("jobTemplate") or {}).get("spec") or {}
    template = job.get("template") or {}
    return causes + template_causes("spec.jobTemplate.spec.template", template, ("OnFailure", "Never"))
