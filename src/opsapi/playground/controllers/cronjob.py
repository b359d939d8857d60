"""CronJobs: a Job at each time of a schedule. After pkg/controller/cronjob/cronjob_controllerv2.go."""

from datetime import datetime

from opsapi.kit.clock import rfc3339
from opsapi.playground.controllers import pods
from opsapi.playground.controllers.base import ObjectController
from opsapi.playground.controllers.cron import Schedule, ScheduleError, parse_schedule
from opsapi.playground.controllers.events import reference
from opsapi.playground.controllers.job import finished
from opsapi.playground.registry import ApiError, Obj

_JOBS = "jobs.batch"
_MISSED = 100


class CronJobController(ObjectController):
    name = "cronjob"
    resource = "cronjobs.batch"
    kind = "CronJob"
    component = "cronjob-controller"
    owned = (_JOBS,)

    def sync(self, namespace: str, name: str) -> None:
        owner = self.registry.find(self.resource, namespace, name)
        if owner is None or pods.is_terminating(owner):
            return
        owner = self._account(owner)
        self._prune(owner)
        if owner["spec"].get("suspend"):
            return
        try:
            schedule = parse_schedule(owner["spec"]["schedule"], owner["spec"].get("timeZone"))
        except ScheduleError as error:
            text = f"unparseable schedule: {owner['spec']['schedule']} : {error.why}"
            self.warning(owner, "UnparseableSchedule", text)
            return
        self._start_due(owner, schedule)
        following = schedule.next_after(self.clock.now())
        if following is not None:
            self.queue.add_after(f"{namespace}/{name}", (following - self.clock.now()).total_seconds())

    def _jobs(self, owner: Obj) -> list[Obj]:
        return sorted(
            self.registry.by_owner(owner["metadata"]["uid"], _JOBS),
            key=lambda job: job["metadata"]["creationTimestamp"],
        )

    def _account(self, owner: Obj) -> Obj:
        """Takes finished Jobs off status.active and notes the last success."""
        jobs = {job["metadata"]["uid"]: job for job in self._jobs(owner)}
        status = dict(owner.get("status", {}))
        active, known = [], status.get("active") or []
        for ref in known:
            job = jobs.get(ref["uid"])
            if job is None:
                self.normal(owner, "MissingJob", f"Active job went missing: {ref['name']}")
                continue
            done = finished(job)
            if done is None:
                active.append(ref)
                continue
            self.normal(owner, "SawCompletedJob", f"Saw completed job: {ref['name']}, condition: {done['type']}")
            if done["type"] == "Complete":
                last = max(status.get("lastSuccessfulTime", ""), job["status"]["completionTime"])
                status["lastSuccessfulTime"] = last
        ours = {ref["uid"] for ref in known}
        for uid, job in jobs.items():
            if uid not in ours and finished(job) is None:
                text = f"Saw a job that the controller did not create or forgot: {job['metadata']['name']}"
                self.warning(owner, "UnexpectedJob", text)
        if active:
            status["active"] = active
        else:
            status.pop("active", None)
        return self._write(owner, status)

    def _write(self, owner: Obj, status: Obj) -> Obj:
        meta = owner["metadata"]
        order = ("active", "lastScheduleTime", "lastSuccessfulTime")
        tidy = {name: status[name] for name in order if status.get(name)}
        return self.registry.patch_status(self.resource, meta["namespace"], meta["name"], tidy)

    def _prune(self, owner: Obj) -> None:
        for kind, field, default in (
            ("Complete", "successfulJobsHistoryLimit", 3),
            ("Failed", "failedJobsHistoryLimit", 1),
        ):
            done = [job for job in self._jobs(owner) if (finished(job) or {}).get("type") == kind]
            limit = int(owner["spec"].get(field, default))
            for job in done[: max(0, len(done) - limit)]:
                self._delete(owner, job)

    def _delete(self, owner: Obj, job: Obj) -> None:
        meta = job["metadata"]
        self.registry.delete(_JOBS, meta["namespace"], meta["name"], uid=meta["uid"])
        self.normal(owner, "SuccessfulDelete", f"Deleted job {meta['name']}")

    def _due(self, owner: Obj, schedule: Schedule) -> datetime | None:
        """The most recent scheduled time that has not been acted on."""
        now = self.clock.now()
        earliest = pods.parse_time(owner["metadata"]["creationTimestamp"])
        last = owner.get("status", {}).get("lastScheduleTime")
        if last:
            earliest = max(earliest, pods.parse_time(last))
        due, candidate, missed = None, schedule.next_after(earliest), 0
        while candidate is not None and candidate <= now:
            due, missed = candidate, missed + 1
            candidate = schedule.next_after(candidate)
        if missed > _MISSED:
            hint = "Set or decrease .spec.startingDeadlineSeconds or check clock skew"
            self.warning(owner, "TooManyMissedTimes", f"too many missed start times: {missed}. {hint}")
        return due

    def _start_due(self, owner: Obj, schedule: Schedule) -> None:
        due = self._due(owner, schedule)
        if due is None:
            return
        deadline = owner["spec"].get("startingDeadlineSeconds")
        if deadline is not None and (self.clock.now() - due).total_seconds() > int(deadline):
            text = f"Missed scheduled time to start a job: {due.strftime('%a, %d %b %Y %H:%M:%S GMT')}"
            self.warning(owner, "MissSchedule", text)
            return
        running = [job for job in self._jobs(owner) if finished(job) is None]
        policy = owner["spec"].get("concurrencyPolicy", "Allow")
        if running and policy == "Forbid":
            text = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self.normal(owner, "JobAlreadyActive", text)
            return
        if policy == "Replace":
            for job in running:
                self._delete(owner, job)
        self._start(owner, due, replace=policy == "Replace")

    def _start(self, owner: Obj, due: datetime, *, replace: bool) -> None:
        meta, template = owner["metadata"], owner["spec"]["jobTemplate"]
        source = template.get("metadata") or {}
        stamp = rfc3339(due)
        name = f"{meta['name']}-{int(due.timestamp()) // 60}"
        job: Obj = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": name,
                "namespace": meta["namespace"],
                "annotations": {
                    **(source.get("annotations") or {}),
                    "batch.kubernetes.io/cronjob-scheduled-timestamp": stamp,
                },
                "ownerReferences": [pods.owner_reference(owner)],
            },
            "spec": template["spec"],
        }
        if source.get("labels"):
            job["metadata"]["labels"] = source["labels"]
        status = dict(owner.get("status", {}))
        try:
            created = self.registry.create(_JOBS, meta["namespace"], job)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                self.warning(owner, "FailedCreate", f"Error creating job: {error}")
                raise
            return
        self.normal(owner, "SuccessfulCreate", f"Created job {name}")
        kept = [] if replace else status.get("active") or []
        status["active"] = [*kept, reference(created)]
        status["lastScheduleTime"] = stamp
        self._write(owner, status)
