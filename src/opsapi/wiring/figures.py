"""Small figures that one domain shows of another: the queue for health, what is left of budgets for whoami."""

import msgspec

from opsapi.accounts.model import BudgetState
from opsapi.kit.caller import Caller
from opsapi.kit.clock import Clock
from opsapi.operations.guardrail_endpoints import budgets
from opsapi.operations.model import Depth
from opsapi.operations.ports import Ledger
from opsapi.policy.admission import Admission
from opsapi.policy.book import PolicyBook
from opsapi.policy.model import Ask, Subject
from opsapi.webhooks.ports import DeliveryStore

_OF_ACCOUNT = ("changes_per_hour_account", "pending_approvals")


class WorkQueue:
    """health's `message_queue`: operations that wait, events that are not dispatched, deliveries that are due."""

    def __init__(self, ledger: Ledger, deliveries: DeliveryStore) -> None:
        self._ledger = ledger
        self._deliveries = deliveries

    async def depth(self) -> Depth:
        operations = await self._ledger.depth()
        backlog = await self._deliveries.backlog()
        waiting = [moment for moment in (operations.oldest_queued_at, backlog.oldest) if moment is not None]
        return Depth(
            queued=operations.queued + backlog.events + backlog.deliveries,
            running=operations.running,
            oldest_queued_at=min(waiting, default=None),
        )


class AccountBudgets:
    """What is left of the account's own budgets, whatever workspace it acts in."""

    def __init__(self, ledger: Ledger, policy: PolicyBook, clock: Clock) -> None:
        self._ledger = ledger
        self._policy = policy
        self._clock = clock

    async def __call__(self, caller: Caller) -> list[BudgetState]:
        settings = self._policy.settings
        subject = Subject(caller.account_id, caller.kind, "", "act")
        ask = Ask(subject=subject, action="", at=self._clock.now())
        begun = await self._ledger.history(Admission(ask, settings))
        waiting = await self._ledger.history(Admission(ask, settings, waits=True))
        history = msgspec.structs.replace(begun, pending=waiting.pending)
        return [
            BudgetState(name=one.name, limit=one.limit, left=one.left)
            for one in budgets(settings, ask, history)
            if one.name in _OF_ACCOUNT
        ]
