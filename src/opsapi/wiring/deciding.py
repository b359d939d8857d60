"""Deciding at the command line: without clusters nothing is planned again here; the worker does, before it begins."""

from datetime import datetime

from opsapi.operations.deciding import AccountFacts, Decider
from opsapi.operations.procedures import Procedures
from opsapi.policy.book import PolicyBook
from opsapi.policy.model import PolicySettings
from opsapi.settings.model import Settings
from opsapi.settings.policy_file import read_policy
from opsapi.wiring.state import State
from opsapi.workspaces.model import Mode


class Facts:
    """What a decision asks of an account."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def __call__(self, account_id: str) -> AccountFacts | None:
        account = await self._state.accounts.account(account_id)
        return None if account is None else AccountFacts(account.name, account.created_by)


def policy_of(settings: Settings) -> PolicySettings:
    """Raises InvalidConfiguration where the policy file has a mistake: nothing is in force yet."""
    return settings.policy if settings.policy_file is None else read_policy(settings.policy_file)


def offline_decider(state: State) -> Decider:
    def mode_of(_workspace_id: str) -> tuple[str, datetime]:
        return Mode.ACT, state.clock.now()

    policy = PolicyBook(policy_of(state.settings), state.clock.now())
    return Decider(state.ledger, Procedures(), policy, state.clock, Facts(state), mode_of)
