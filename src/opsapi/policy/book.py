"""The policy in force, replaceable while the service runs."""

from datetime import datetime

import msgspec

from opsapi.policy.model import PolicySettings


class PolicyState(msgspec.Struct, frozen=True, kw_only=True):
    """`problems`: what is wrong with the file that was last looked at; then the policy read at `read_at` stays."""

    read_at: datetime | None
    problems: tuple[str, ...] = ()


class PolicyBook:
    """Everyone who judges asks `settings` anew, so that a change of the file holds from the next judgement on."""

    def __init__(self, settings: PolicySettings, read_at: datetime | None = None) -> None:
        self.settings = settings
        self.state = PolicyState(read_at=read_at)

    def replace(self, settings: PolicySettings, read_at: datetime) -> None:
        self.settings = settings
        self.state = PolicyState(read_at=read_at)

    def reject(self, problems: tuple[str, ...]) -> None:
        """The file has mistakes: what was in force stays in force."""
        self.state = msgspec.structs.replace(self.state, problems=problems)
