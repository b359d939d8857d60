"""A change at the door: what it asks, and the settings in force, to be judged by the history that its own transaction
reads."""

from dataclasses import dataclass
from datetime import datetime

from opsapi.policy.evaluation import judge_history, judge_pending
from opsapi.policy.model import Ask, History, PolicySettings, Refusal


@dataclass(frozen=True, slots=True)
class Admission:
    """`waits`: it is to wait for a person's decision, so only what stands against waiting counts. `exempt`: what was
    done lately does not count (an undo must not wait for a cooldown), a pause does."""

    ask: Ask
    settings: PolicySettings
    waits: bool = False
    exempt: bool = False

    def judge(self, history: History, now: datetime) -> list[Refusal]:
        if self.waits:
            return judge_pending(self.settings, self.ask, history)
        if self.exempt:
            return judge_history(self.settings, self.ask, History(paused=history.paused), now)
        return judge_history(self.settings, self.ask, history, now)
