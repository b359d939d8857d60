"""The pods of one owner as counts: what is added and taken away pod by pod."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from opsapi.workspaces.pods import PodFacts, Trouble
from opsapi.workspaces.states import PodCensus


class PodGroup:
    """The pods of one direct controller (or one bare pod)."""

    __slots__ = ("causes", "named", "oom_kills", "pods")

    def __init__(self, named: tuple[str, str, str]) -> None:
        self.named = named
        self.pods = 0
        self.causes: dict[Trouble, Counter[str]] = {}
        self.oom_kills: Counter[datetime] = Counter()

    def add(self, facts: PodFacts, sign: int) -> None:
        self.pods += sign
        if facts.trouble is not None:
            causes = self.causes.setdefault(facts.trouble, Counter())
            count(causes, facts.cause, sign)
            if not causes:
                del self.causes[facts.trouble]
        if facts.oom_at is not None:
            count(self.oom_kills, facts.oom_at, sign)


def count(counter: Counter[Any], key: Any, sign: int) -> None:
    left = counter[key] + sign
    if left:
        counter[key] = left
    else:
        del counter[key]


def census_of(groups: Iterable[PodGroup]) -> PodCensus:
    pods = 0
    causes: dict[Trouble, Counter[str]] = {}
    kills: list[datetime] = []
    for group in groups:
        pods += group.pods
        for trouble, counter in group.causes.items():
            causes.setdefault(trouble, Counter()).update(counter)
        kills.extend(group.oom_kills.elements())
    troubles = {
        trouble: (counter.total(), min(counter, key=lambda cause, c=counter: (-c[cause], cause)))  # type: ignore[misc]
        for trouble, counter in sorted(causes.items())
    }
    return PodCensus(pods, troubles, tuple(sorted(kills)))
