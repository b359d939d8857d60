"""Jobs: run pods until enough have succeeded. After pkg/controller/job/job_controller.go.

Not modelled: podFailurePolicy, successPolicy, backoffLimitPerIndex and the tracking finalizer.
"""

from opsapi.playground.controllers import pods
from opsapi.playground.controllers.base import ObjectController
from opsapi.playground.registry import ApiError, Obj

_BACKOFF = 10.0
_MAX_BACKOFF = 600.0
_INDEX = "batch.kubernetes.io/job-completion-index"


def finished(job: Obj) -> Obj | None:
    """The Complete or Failed condition that holds."""
    for item in job.get("status", {}).get("conditions") or []:
        if item["type"] in ("Complete", "Failed") and item["status"] == "True":
            return dict(item)
    return None


def index_of(pod: Obj) -> int:
    return int((pod["metadata"].get("annotations") or {}).get(_INDEX, "-1"))


def compress(indexes: list[int]) -> str:
    """`[0, 1, 2, 5]` -> `"0-2,5"`: completedIndexes."""
    spans: list[list[int]] = []
    for index in sorted(set(indexes)):
        if spans and index == spans[-1][-1] + 1:
            spans[-1] = [spans[-1][0], index]
        else:
            spans.append([index])
    return ",".join("-".join(str(bound) for bound in span) for span in spans)


class JobController(ObjectController):
    name = "job"
    resource = "jobs.batch"
    kind = "Job"
    component = "job-controller"
    owned = ("pods",)

    def sync(self, namespace: str, name: str) -> None:
        job = self.registry.find(self.resource, namespace, name)
        if job is None or pods.is_terminating(job):
            return
        if finished(job) is not None:
            self._expire(job)
            return
        everything = self.registry.by_owner(job["metadata"]["uid"], "pods")
        verdict = self._verdict(job, everything)
        failure: ApiError | None = None
        try:
            if verdict is not None:
                self._stop(job, everything)
            else:
                self._manage(job, everything)
        except ApiError as error:
            failure = error
        self._write_status(job, verdict)
        if failure is not None:
            raise failure

    def _expire(self, job: Obj) -> None:
        """ttlSecondsAfterFinished."""
        ttl, done = job["spec"].get("ttlSecondsAfterFinished"), finished(job)
        if ttl is None or done is None:
            return
        left = int(ttl) - (self.clock.now() - pods.parse_time(done["lastTransitionTime"])).total_seconds()
        meta = job["metadata"]
        if left > 0:
            self.queue.add_after(f"{meta['namespace']}/{meta['name']}", left)
        else:
            self.registry.delete(self.resource, meta["namespace"], meta["name"], uid=meta["uid"])

    def _failures(self, job: Obj, everything: list[Obj]) -> int:
        failed = sum(1 for pod in everything if pods.phase(pod) == "Failed")
        if job["spec"]["template"]["spec"].get("restartPolicy") == "OnFailure":
            failed += sum(pods.restarts(pod) for pod in everything)
        return failed

    def _verdict(self, job: Obj, everything: list[Obj]) -> tuple[str, str, str] | None:
        """(Complete or Failed, reason, message) once the Job is decided."""
        spec = job["spec"]
        if self._failures(job, everything) > int(spec.get("backoffLimit", 6)):
            return "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        deadline, start = spec.get("activeDeadlineSeconds"), job.get("status", {}).get("startTime")
        if deadline is not None and start and not spec.get("suspend"):
            left = int(deadline) - (self.clock.now() - pods.parse_time(start)).total_seconds()
            if left <= 0:
                return "Failed", "DeadlineExceeded", "Job was active longer than specified deadline"
            self.queue.add_after(f"{job['metadata']['namespace']}/{job['metadata']['name']}", left)
        succeeded = self._succeeded(job, everything)
        active = sum(1 for pod in everything if pods.is_active(pod))
        completions = spec.get("completions")
        done = succeeded > 0 and active == 0 if completions is None else succeeded >= int(completions)
        return ("Complete", "CompletionsReached", "Reached expected number of succeeded pods") if done else None

    @staticmethod
    def _succeeded(job: Obj, everything: list[Obj]) -> int:
        done = [pod for pod in everything if pods.phase(pod) == "Succeeded"]
        if job["spec"].get("completionMode") == "Indexed":
            return len({index_of(pod) for pod in done})
        return len(done)

    def _stop(self, job: Obj, everything: list[Obj]) -> None:
        for pod in everything:
            if pods.is_active(pod):
                self._delete(job, pod)

    def _delete(self, job: Obj, pod: Obj) -> None:
        meta = pod["metadata"]
        self.registry.delete("pods", meta["namespace"], meta["name"], uid=meta["uid"])
        self.normal(job, "SuccessfulDelete", f"Deleted pod: {meta['name']}")

    def _manage(self, job: Obj, everything: list[Obj]) -> None:
        active = [pod for pod in everything if pods.is_active(pod)]
        if job["spec"].get("suspend"):
            self._stop(job, active)
            return
        parallelism = int(job["spec"].get("parallelism", 1))
        completions = job["spec"].get("completions")
        succeeded = self._succeeded(job, everything)
        if completions is not None:
            wanted = min(parallelism, int(completions) - succeeded)
        else:
            wanted = len(active) if succeeded else parallelism
        for pod in active[max(0, wanted) :]:
            self._delete(job, pod)
        missing = wanted - len(active)
        if missing <= 0:
            return
        wait = self._backoff_left(job, everything)
        if wait > 0:
            self.queue.add_after(f"{job['metadata']['namespace']}/{job['metadata']['name']}", wait)
            return
        for index in self._free_indexes(job, everything, missing):
            self._create(job, index)

    def _backoff_left(self, job: Obj, everything: list[Obj]) -> float:
        """After the n-th failed pod in a row the next one waits 10 s x 2^(n-1), ten minutes at most."""
        failed = [pod for pod in everything if pods.phase(pod) == "Failed"]
        if not failed or self._succeeded(job, everything):
            return 0.0
        last = max(_finished_at(pod) for pod in failed)
        delay = min(_BACKOFF * 2.0 ** (len(failed) - 1), _MAX_BACKOFF)
        return delay - (self.clock.now() - pods.parse_time(last)).total_seconds()

    @staticmethod
    def _free_indexes(job: Obj, everything: list[Obj], count: int) -> list[int]:
        if job["spec"].get("completionMode") != "Indexed":
            return [-1] * count
        taken = {index_of(pod) for pod in everything if pods.phase(pod) != "Failed" and not pods.is_terminating(pod)}
        free = [index for index in range(int(job["spec"]["completions"])) if index not in taken]
        return free[:count]

    def _create(self, job: Obj, index: int) -> None:
        meta = job["metadata"]
        prefix = f"{meta['name']}-" if index < 0 else f"{meta['name']}-{index}-"
        labels = {
            "batch.kubernetes.io/controller-uid": meta["uid"],
            "batch.kubernetes.io/job-name": meta["name"],
            "controller-uid": meta["uid"],
            "job-name": meta["name"],
        }
        if index >= 0:
            labels[_INDEX] = str(index)
        pod = pods.from_template(job["spec"]["template"], job, prefix + pods.suffix(self.cluster.rng), prefix, **labels)
        if index >= 0:
            pod["metadata"]["annotations"] = {**(pod["metadata"].get("annotations") or {}), _INDEX: str(index)}
        try:
            self.registry.create("pods", meta["namespace"], pod)
        except ApiError as error:
            self.warning(job, "FailedCreate", f"Error creating: {error}")
            raise
        self.normal(job, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")

    def _write_status(self, job: Obj, verdict: tuple[str, str, str] | None) -> None:
        meta = job["metadata"]
        everything = self.registry.by_owner(meta["uid"], "pods")
        active = [pod for pod in everything if pods.is_active(pod)]
        old = job.get("status", {})
        stamp = self.cluster.stamp()
        conditions = list(old.get("conditions") or [])
        status: Obj = {}
        suspended = bool(job["spec"].get("suspend"))
        if not suspended:
            status["startTime"] = old.get("startTime") or stamp
        conditions = self._suspension(job, conditions, suspended, stamp)
        if verdict is not None:
            kind, reason, message = verdict
            early = "SuccessCriteriaMet" if kind == "Complete" else "FailureTarget"
            times = {"lastProbeTime": stamp, "lastTransitionTime": stamp, "reason": reason, "message": message}
            conditions += [{"type": early, "status": "True", **times}, {"type": kind, "status": "True", **times}]
            if kind == "Complete":
                status["completionTime"] = stamp
                self.normal(job, "Completed", "Job completed")
            else:
                self.warning(job, reason, message)
        if conditions:
            status["conditions"] = conditions
        figures = {
            "active": len(active),
            "succeeded": self._succeeded(job, everything),
            "failed": sum(1 for pod in everything if pods.phase(pod) == "Failed"),
        }
        status |= {name: count for name, count in figures.items() if count}
        if job["spec"].get("completionMode") == "Indexed" and figures["succeeded"]:
            done = [index_of(pod) for pod in everything if pods.phase(pod) == "Succeeded"]
            status["completedIndexes"] = compress(done)
        status["uncountedTerminatedPods"] = {}
        status["ready"] = sum(1 for pod in active if pods.is_ready(pod))
        status["terminating"] = sum(1 for pod in everything if pods.is_terminating(pod) and not pods.is_finished(pod))
        self.registry.patch_status(self.resource, meta["namespace"], meta["name"], status)

    def _suspension(self, job: Obj, conditions: list[Obj], suspended: bool, stamp: str) -> list[Obj]:
        held = next((item for item in conditions if item["type"] == "Suspended"), None)
        if suspended == (held is not None and held["status"] == "True"):
            return conditions
        word = ("JobSuspended", "Job suspended") if suspended else ("JobResumed", "Job resumed")
        self.normal(job, "Suspended" if suspended else "Resumed", word[1])
        new = {
            "type": "Suspended",
            "status": "True" if suspended else "False",
            "lastProbeTime": stamp,
            "lastTransitionTime": stamp,
            "reason": word[0],
            "message": word[1],
        }
        return [item for item in conditions if item["type"] != "Suspended"] + [new]


def _finished_at(pod: Obj) -> str:
    stamps = [
        str(status["state"]["terminated"].get("finishedAt") or "")
        for status in pod.get("status", {}).get("containerStatuses") or []
        if status.get("state", {}).get("terminated")
    ]
    return max(stamps, default="") or str(pod["metadata"]["creationTimestamp"])
