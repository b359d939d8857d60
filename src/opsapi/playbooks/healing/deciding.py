"""What is done about one application: one remedy, or none and why. Pure.

| found | auto | restart_unhealthy_pods | rollback_release | raise_memory_limit |
|---|---|---|---|---|
| a newest revision that is ill, the one before it known to be well | roll back | propose | roll back | propose |
| the same, the one before it not known | propose | propose | a person decides | propose |
| killed for want of memory, room for more | raise (a person decides) | propose | propose | raise (a person decides) |
| was ready, or its twins are | restart | restart | propose | propose |
| anything else | propose | propose | propose | propose |
"""

from collections.abc import Callable
from datetime import datetime

import msgspec

from opsapi.diagnosis.model import Cause, PodFinding
from opsapi.diagnosis.workloads import Diagnosis
from opsapi.playbooks.healing.model import HealAction, MemoryOrder, Remedy


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """`remedy` None: nothing is done, for `why`. `ask`: only once a person has decided."""

    remedy: Remedy | None
    why: str
    pods: tuple[PodFinding, ...] = ()
    memory: tuple[MemoryOrder, ...] = ()
    ask: bool = False


RaiseMemory = Callable[[tuple[str, ...]], tuple[tuple[MemoryOrder, ...], str]]
"""By the names of containers: what to raise, or why nothing can be."""


def choose(
    diagnosis: Diagnosis, action: HealAction, *, now: datetime, held_seconds: float, raise_memory: RaiseMemory
) -> Choice:
    if diagnosis.deliberate:
        return Choice(remedy=None, why=f"it is not healed: {diagnosis.deliberate}")
    if not diagnosis.findings:
        short = f"{diagnosis.ready} of {diagnosis.desired} pods are ready"
        why = "it is healthy" if diagnosis.well else f"{short}, and no pod says why"
        return Choice(remedy=None, why=why)
    held = tuple(finding for finding in diagnosis.findings if finding.held(now, held_seconds))
    if not held:
        return Choice(remedy=None, why=f"its condition has not held for {held_seconds:g} s yet")
    rollback = _rollback(diagnosis, action, now, held_seconds)
    if rollback is not None and rollback.remedy is not None:
        return rollback
    memory = _memory(held, action, raise_memory)
    if memory is not None and memory.remedy is not None:
        return memory
    curable = tuple(finding for finding in held if finding.restart_cures)
    if curable and action in (HealAction.AUTO, HealAction.RESTART):
        return Choice(remedy=Remedy.RESTART, why=curable[0].why, pods=curable)
    said = next((one.why for one in (rollback, memory) if one is not None), "")
    return Choice(remedy=None, why=said or _why_not(held, action))


def _rollback(diagnosis: Diagnosis, action: HealAction, now: datetime, held_seconds: float) -> Choice | None:
    release = diagnosis.release
    if release is None:
        why = "no earlier revision is known to have been well, or the newest one is not what is ill"
        return Choice(remedy=None, why=why) if action is HealAction.ROLL_BACK else None
    if release.since is None or (now - release.since).total_seconds() < held_seconds:
        return None
    numbers = f"revision {release.current.number} is ill"
    if action not in (HealAction.AUTO, HealAction.ROLL_BACK):
        return Choice(remedy=None, why=f"{numbers}: no pod of it is well, and rollback_release would go back")
    if release.proven:
        return Choice(remedy=Remedy.ROLL_BACK, why=f"{numbers}, revision {release.previous.number} was well")
    if action is HealAction.ROLL_BACK:
        return Choice(remedy=Remedy.ROLL_BACK, why=f"{numbers}; {release.doubt}", ask=True)
    return Choice(remedy=None, why=f"{numbers}, and going back may not help: {release.doubt}")


def _memory(held: tuple[PodFinding, ...], action: HealAction, raise_memory: RaiseMemory) -> Choice | None:
    killed = tuple(finding for finding in held if finding.cause is Cause.OOM_KILLED)
    if not killed:
        why = "no container was killed for want of memory"
        return Choice(remedy=None, why=why) if action is HealAction.RAISE else None
    if action not in (HealAction.AUTO, HealAction.RAISE):
        return Choice(remedy=None, why="a container is killed for want of memory: raise_memory_limit would help")
    orders, refused = raise_memory(tuple(sorted({finding.container for finding in killed})))
    if not orders:
        return Choice(remedy=None, why=refused)
    return Choice(remedy=Remedy.RAISE, why="a container is killed for want of memory", pods=killed, memory=orders)


def _why_not(held: tuple[PodFinding, ...], action: HealAction) -> str:
    if action in (HealAction.AUTO, HealAction.RESTART):
        return f"{held[0].cause.value}: {held[0].why}"
    return f"{action.value} does not help against {held[0].cause.value}"
