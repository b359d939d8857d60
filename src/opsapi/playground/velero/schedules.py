"""Schedules: a Backup at each time of a cron expression. After pkg/controller/schedule_controller.go."""

from datetime import datetime

from opsapi.kit.clock import rfc3339
from opsapi.playground.controllers import pods
from opsapi.playground.controllers.base import ObjectController
from opsapi.playground.controllers.cron import Schedule, ScheduleError, parse_schedule
from opsapi.playground.registry import ApiError, Obj
from opsapi.playground.velero.server import POLL, Server
from opsapi.playground.velero.storage import BACKUPS, NAMESPACE, SCHEDULE_NAME, SCHEDULES, with_spec

_BUSY = ("", "New", "InProgress")
_RETRY = 60.0


class ScheduleController(ObjectController):
    name = "velero-schedules"
    resource = SCHEDULES
    kind = "Schedule"
    component = "velero"

    def __init__(self, server: Server) -> None:
        super().__init__(server.cluster)
        self._server = server

    def sync(self, namespace: str, name: str) -> None:
        schedule = self.registry.find(SCHEDULES, namespace, name)
        if schedule is None or namespace != NAMESPACE or pods.is_terminating(schedule):
            return
        schedule = with_spec(schedule)
        key = f"{namespace}/{name}"
        if self._server.faults.velero_down():
            self.queue.add_after(key, POLL)
            return
        if schedule["spec"].get("paused"):
            return
        plan = self._validated(schedule)
        if plan is None:
            return
        schedule = with_spec(self.registry.get(SCHEDULES, namespace, name))
        due = plan.next_after(self._last(schedule))
        if due is None:
            return
        wait = (due - self.clock.now()).total_seconds()
        if wait > 0:
            self.queue.add_after(key, wait)
        elif self._is_busy(name):
            self.queue.add_after(key, _RETRY)
        else:
            self._submit(schedule)

    def _validated(self, schedule: Obj) -> Schedule | None:
        text = schedule["spec"].get("schedule") or ""
        status = dict(schedule.get("status") or {})
        status.pop("validationErrors", None)
        try:
            plan = parse_schedule(text) if text else None
            problem = "" if text else "Schedule must be a non-empty valid Cron expression"
        except ScheduleError as error:
            plan, problem = None, f"invalid schedule: {error.why}"
        if problem:
            status |= {"phase": "FailedValidation", "validationErrors": [problem]}
        else:
            status["phase"] = "Enabled"
        self._server.write(SCHEDULES, schedule, status)
        return plan

    def _last(self, schedule: Obj) -> datetime:
        status = schedule.get("status") or {}
        stamps = [status.get("lastBackup") or schedule["metadata"]["creationTimestamp"], status.get("lastSkipped")]
        return max(pods.parse_time(stamp) for stamp in stamps if stamp)

    def _is_busy(self, name: str) -> bool:
        return any(
            (one.get("status") or {}).get("phase", "") in _BUSY
            for one in self.registry.iterate(BACKUPS, NAMESPACE)
            if (one["metadata"].get("labels") or {}).get(SCHEDULE_NAME) == name
        )

    def _submit(self, schedule: Obj) -> None:
        meta, spec, now = schedule["metadata"], schedule["spec"], self.clock.now()
        template = spec.get("template") or {}
        labels = {**((template.get("metadata") or {}).get("labels") or meta.get("labels") or {})}
        made: Obj = {
            "name": f"{meta['name']}-{now.strftime('%Y%m%d%H%M%S')}",
            "namespace": NAMESPACE,
            "labels": {**labels, SCHEDULE_NAME: meta["name"]},
        }
        if meta.get("annotations"):
            made["annotations"] = meta["annotations"]
        if spec.get("useOwnerReferencesInBackup"):
            made["ownerReferences"] = [{**pods.owner_reference(schedule), "blockOwnerDeletion": False}]
        backup = {"apiVersion": "velero.io/v1", "kind": "Backup", "metadata": made, "spec": template}
        try:
            self._server.create(BACKUPS, NAMESPACE, backup)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        self._server.write(SCHEDULES, schedule, {**schedule["status"], "lastBackup": rfc3339(now)})
