"""auto_heal, from a call to a proposal: what is ill is looked at anew, and each application gets one remedy at most."""

from collections.abc import Sequence

import msgspec

from opsapi.applications.errors import ManagedExternally, ManagerDetails
from opsapi.applications.ownership import manager_of
from opsapi.diagnosis.model import PodFinding
from opsapi.kit.errors import (
    InvalidState,
    OpsError,
    PolicyDenied,
    PolicyDetails,
    PolicyRule,
    StateDetails,
    ValidationFailed,
)
from opsapi.kit.permissions import Permission
from opsapi.operations.model import Operation, workspace_lock
from opsapi.operations.procedures import Procedure
from opsapi.operations.proposal import Proposal
from opsapi.playbooks.components import Component, components, find_component
from opsapi.playbooks.healing.deciding import Choice, choose
from opsapi.playbooks.healing.facts import Candidate, HealingFacts, quotas_of
from opsapi.playbooks.healing.memory import bounds_of, quota_shortage, raised
from opsapi.playbooks.healing.model import (
    ACTION,
    IDENTIFY,
    RAISE,
    RESTART,
    ROLL_BACK,
    VERIFY,
    WORKLOADS,
    Found,
    HealAction,
    HealingSettings,
    HealOrder,
    HealParameters,
    MemoryOrder,
    PodOrder,
    Remedy,
    RollbackOrder,
    TargetOrder,
)
from opsapi.playbooks.healing.steps import HealingSteps
from opsapi.playbooks.model import Context, PlaybookParameters
from opsapi.policy.book import PolicyBook
from opsapi.policy.evaluation import judge_range, most_at_once
from opsapi.policy.model import Ask, Disruption, Subject
from opsapi.workspaces.errors import WorkspaceNotFound
from opsapi.workspaces.objects import NAMESPACE, STATEFUL_SET, Namespace
from opsapi.workspaces.ports import Cluster, Clusters

_STEPS = ((Remedy.RESTART, RESTART), (Remedy.ROLL_BACK, ROLL_BACK), (Remedy.RAISE, RAISE))
_MOST_FOUND = 50
_MOST_FINDINGS = 10


class _Planned(msgspec.Struct, frozen=True, kw_only=True):
    found: Found
    target: TargetOrder | None = None
    refusal: OpsError | None = None
    ask: bool = False


class HealPlaybook:
    """Implements Playbook."""

    def __init__(
        self,
        clusters: Clusters,
        facts: HealingFacts,
        policy: PolicyBook,
        steps: HealingSteps,
        settings: HealingSettings,
    ) -> None:
        self._clusters = clusters
        self._facts = facts
        self._policy = policy
        self._steps = steps
        self._settings = settings

    @property
    def operation(self) -> str:
        return ACTION

    @property
    def parameters_type(self) -> type[PlaybookParameters]:
        return HealParameters

    def procedure(self) -> Procedure:
        return self._steps.procedure(self.replan)

    async def propose(
        self,
        cluster: Cluster,
        subject: Subject,
        parameters: HealParameters,
        *,
        context: Context,
        reason: str | None,
        confirm: bool,
    ) -> Proposal:
        settings = self._policy.settings
        held = self._held_seconds(parameters)
        component: Component | None = None
        if parameters.target_component is not None:
            component = find_component(cluster, settings, parameters.target_component, WORKLOADS)
        planned = await self._plan(cluster, subject, component, parameters.action, held)
        ill = [one.found for one in planned if one.found.findings or one.found.remedy is not None or component]
        order = HealOrder(
            workspace_id=cluster.workspace.id,
            action=parameters.action,
            held_seconds=held,
            target_component=parameters.target_component,
            application_id=component.id if component is not None else None,
            reason=reason,
            confirm=confirm,
            context=context,
            targets=tuple(one.target for one in planned if one.target is not None),
            found=tuple(ill[:_MOST_FOUND]),
            unhealthy=sum(one.unhealthy for one in ill),
            planned_at=cluster.inventory.now(),
        )
        # Of one application that was named, what stands against it is the answer; of many, it stays in the findings.
        refusals = tuple(one.refusal for one in planned if one.refusal is not None) if component is not None else ()
        wants = confirm or any(one.ask for one in planned if one.target is not None)
        return self._proposal(cluster, subject, order, component, refusals, wants)

    async def replan(self, operation: Operation) -> Proposal:
        order = msgspec.convert(operation.parameters, HealOrder)
        cluster = self._clusters.find(order.workspace_id)
        if cluster is None:
            raise WorkspaceNotFound(order.workspace_id)
        kind = Subject.kind_of(operation.requested_by_kind)
        subject = Subject(operation.requested_by, kind, order.workspace_id, cluster.workspace.mode)
        parameters = HealParameters(
            target_component=order.application_id, action=order.action, condition_held_seconds=order.held_seconds
        )
        return await self.propose(
            cluster, subject, parameters, context=order.context, reason=order.reason, confirm=order.confirm
        )

    def _held_seconds(self, parameters: HealParameters) -> float:
        settings = self._policy.settings
        if parameters.condition_held_seconds is None:
            return float(settings.condition_held_seconds)
        given = parameters.condition_held_seconds
        wrong = judge_range("condition_held_seconds", given, settings.ranges.condition_held_seconds)
        if wrong is not None and given != settings.condition_held_seconds:
            raise ValidationFailed({"parameters.condition_held_seconds": wrong})
        return given

    async def _plan(
        self, cluster: Cluster, subject: Subject, component: Component | None, action: HealAction, held: float
    ) -> list[_Planned]:
        if component is not None:
            candidate = await self._facts.fresh(cluster, component)
            if candidate is None:
                why = "it was deleted or replaced a moment ago"
                return [_Planned(found=_found(component, None, why))]
            return [await self._one(cluster, subject, candidate, action, held)]
        planned = []
        for one in components(cluster, self._policy.settings, WORKLOADS):
            cached = self._facts.cached(cluster, one)
            if cached is None or not cached.diagnosis.findings:
                continue
            candidate = await self._facts.fresh(cluster, one)
            if candidate is not None:
                planned.append(await self._one(cluster, subject, candidate, action, held))
        return planned

    async def _one(
        self, cluster: Cluster, subject: Subject, candidate: Candidate, action: HealAction, held: float
    ) -> _Planned:
        namespace = candidate.workload.metadata.namespace
        limit_ranges = await self._facts.limit_ranges(cluster, namespace) if _killed(candidate) else []

        def raise_memory(names: tuple[str, ...]) -> tuple[tuple[MemoryOrder, ...], str]:
            if limit_ranges is None:
                return (), "LimitRanges cannot be read, so how far a limit may go is not known"
            bounds = bounds_of(self._settings.max_memory_limit, limit_ranges)
            held_by = {c.name: c for c in candidate.workload.spec.template.spec.containers}
            tried = [raised(held_by[name], bounds) for name in names if name in held_by]
            orders = tuple(one for one in tried if isinstance(one, MemoryOrder))
            if not orders:
                return (), next((one for one in tried if isinstance(one, str)), "the template has no such container")
            shortage = quota_shortage(orders, candidate.diagnosis.desired, quotas_of(cluster, namespace))
            return ((), shortage) if shortage else (orders, "")

        choice = choose(
            candidate.diagnosis, action, now=cluster.inventory.now(), held_seconds=held, raise_memory=raise_memory
        )
        if choice.remedy is None:
            return _Planned(found=_found(candidate.component, candidate, choice.why))
        refusal = self._refusal(cluster, subject, candidate, choice)
        if refusal is not None:
            return _Planned(found=_found(candidate.component, candidate, refusal.message), refusal=refusal)
        target = self._target(subject, candidate, choice)
        found = _found(candidate.component, candidate, choice.why, choice.remedy)
        return _Planned(found=found, target=target, ask=choice.ask)

    def _refusal(self, cluster: Cluster, subject: Subject, candidate: Candidate, choice: Choice) -> OpsError | None:
        settings, component = self._policy.settings, candidate.component
        meta = candidate.workload.metadata
        namespace = cluster.inventory.get(NAMESPACE, Namespace, "", meta.namespace)
        label = settings.protected_label
        around = namespace.metadata.labels if namespace is not None else {}
        if "true" in (meta.labels.get(label), around.get(label)):
            details = PolicyDetails(rule=PolicyRule.PROTECTED_LABEL, alternatives=[f"have the label {label} removed"])
            return PolicyDenied(f"The label {label} protects {meta.name} from changes", details)
        if choice.remedy is not Remedy.RESTART and candidate.workload.spec.paused:
            state = StateDetails(resource_id=component.id, state="paused")
            return InvalidState(f"The rollout of {meta.name} is paused: nothing that is written takes effect", state)
        manager = manager_of(meta)
        waived = settings.waived(PolicyRule.MANAGED_EXTERNALLY, subject.account_id, subject.workspace_id)
        if choice.remedy is Remedy.RESTART or manager is None or waived:
            return None
        tool, source = manager
        details_of_manager = ManagerDetails(
            resource_id=component.id, manager=tool, source=source, patch=_patch_to_commit(candidate, choice)
        )
        return ManagedExternally(details_of_manager)

    def _target(self, subject: Subject, candidate: Candidate, choice: Choice) -> TargetOrder:
        diagnosis, meta, kind = candidate.diagnosis, candidate.workload.metadata, candidate.component.kind
        pods = _to_evict(candidate, choice)
        limits = self._policy.settings.limits_for(subject, ACTION)
        release = diagnosis.release
        rollback = None
        if choice.remedy is Remedy.ROLL_BACK and release is not None:
            rollback = RollbackOrder(
                from_number=release.current.number,
                from_name=release.current.name,
                from_uid=release.current.uid,
                to_number=release.previous.number,
                to_name=release.previous.name,
                to_uid=release.previous.uid,
                label=release.current.label,
            )
        selector = candidate.workload.spec.selector
        return TargetOrder(
            application_id=candidate.component.id,
            kind=kind.kind,
            namespace=meta.namespace,
            name=meta.name,
            uid=meta.uid,
            generation=meta.generation,
            desired=diagnosis.desired,
            ready=diagnosis.ready,
            pods_before=diagnosis.pods,
            at_once=most_at_once(limits, max(diagnosis.desired, diagnosis.pods)),
            remedy=choice.remedy or Remedy.RESTART,
            selector=dict(selector.match_labels) if selector is not None else {},
            pods=tuple(PodOrder(name=one.pod, uid=one.uid, why=one.why) for one in pods),
            rollback=rollback,
            memory=choice.memory,
        )

    def _proposal(
        self,
        cluster: Cluster,
        subject: Subject,
        order: HealOrder,
        component: Component | None,
        refusals: tuple[OpsError, ...],
        confirm: bool,
    ) -> Proposal:
        targets = order.targets
        remedies = [step for remedy, step in _STEPS if order.targets_of(remedy)]
        locks = frozenset(f"{order.workspace_id}/{target.application_id}" for target in targets)
        own = component.lock if component is not None else workspace_lock(order.workspace_id, ACTION)
        return Proposal(
            action=ACTION,
            workspace_id=order.workspace_id,
            application_id=component.id if component is not None else None,
            resource_id=component.id if component is not None else order.workspace_id,
            resource_uid=component.meta.uid if component is not None else None,
            permission=Permission.WORKSPACE_ADMIN,
            parameters=msgspec.to_builtins(order),
            plan={
                "targets": msgspec.to_builtins(targets),
                "found": msgspec.to_builtins(order.found),
                "unhealthy_pods": order.unhealthy,
            },
            intended=_intended(order),
            steps=(IDENTIFY, *remedies, VERIFY) if targets else (IDENTIFY,),
            locks=frozenset({own}),
            ask=Ask(
                subject=subject,
                action=ACTION,
                at=cluster.inventory.now(),
                targets=tuple(sorted(locks)),
                counted=bool(targets),
                disruptions=tuple(
                    Disruption(one.place, min(one.at_once, len(one.pods)), max(one.desired, one.pods_before))
                    for one in targets
                    if one.pods
                ),
                resizes=bool(order.targets_of(Remedy.RAISE)),
                applications=max(1, len(targets)),
                wants_approval=confirm and bool(targets),
            ),
            refusals=refusals,
            warnings=_warnings(order),
            reason=order.reason,
            nothing_to_do=not targets,
        )


def _to_evict(candidate: Candidate, choice: Choice) -> tuple[PodFinding, ...]:
    """Those that are restarted. With a new template: those that no controller replaces by themselves. A StatefulSet's
    never replaces a pod that does not become ready, whatever its template says; with OnDelete none is replaced."""
    release = candidate.diagnosis.release
    on_delete = candidate.workload.spec.update_strategy.type == "OnDelete"
    if choice.remedy is not Remedy.RESTART and candidate.component.kind != STATEFUL_SET and not on_delete:
        return ()
    if choice.remedy is Remedy.ROLL_BACK and release is not None:
        left = {pod.metadata.uid for pod in release.current.pods}
        return tuple(finding for finding in candidate.diagnosis.findings if finding.uid in left)
    return choice.pods


def _intended(order: HealOrder) -> dict[str, object]:
    return {
        "action": order.action,
        "component": order.application_id,
        "held_seconds": order.held_seconds,
        "targets": [
            {
                "uid": one.uid,
                "generation": one.generation,
                "remedy": one.remedy,
                "pods": sorted(pod.uid for pod in one.pods),
                "rollback": one.rollback,
                "memory": one.memory,
            }
            for one in order.targets
        ],
    }


def _warnings(order: HealOrder) -> tuple[str, ...]:
    pods = sum(len(one.pods) for one in order.targets)
    return (f"{pods} pods are evicted, which cannot be undone",) if pods else ()


def _killed(candidate: Candidate) -> bool:
    return any(finding.cause.value == "oom_killed" for finding in candidate.diagnosis.findings)


def _found(component: Component, candidate: Candidate | None, why: str, remedy: Remedy | None = None) -> Found:
    diagnosis = candidate.diagnosis if candidate is not None else None
    return Found(
        application_id=component.id,
        application=component.place,
        desired=diagnosis.desired if diagnosis is not None else 0,
        ready=diagnosis.ready if diagnosis is not None else 0,
        remedy=remedy,
        why=why,
        unhealthy=len(diagnosis.findings) if diagnosis is not None else 0,
        findings=diagnosis.findings[:_MOST_FINDINGS] if diagnosis is not None else (),
    )


def _patch_to_commit(candidate: Candidate, choice: Choice) -> str:
    """What to change at the source: the images of the revision before, or the memory."""
    meta, kind = candidate.workload.metadata, candidate.component.kind
    lines: Sequence[str]
    if choice.remedy is Remedy.ROLL_BACK and candidate.diagnosis.release is not None:
        previous = candidate.diagnosis.release.previous
        lines = [f"# the template of revision {previous.number}, as {previous.name} holds it"]
    else:
        lines = ["spec:", "  template:", "    spec:", "      containers:"]
        for one in choice.memory:
            lines += [f"      - name: {one.container}", "        resources:", "          limits:"]
            lines += [f"            memory: {one.limit_after}"]
            if one.request_after:
                lines += ["          requests:", f"            memory: {one.request_after}"]
    head = [f"apiVersion: {kind.api_version}", f"kind: {kind.kind}", "metadata:"]
    return "\n".join([*head, f"  name: {meta.name}", f"  namespace: {meta.namespace}", *lines, ""])
