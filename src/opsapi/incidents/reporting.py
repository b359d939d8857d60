"""Telling of a problem: from the API, from what the service itself sees, from analyzers."""

from collections.abc import Sequence

import msgspec

from opsapi.incidents.model import Change, Incident, Scene
from opsapi.incidents.opening import Report, accept, keys_of
from opsapi.incidents.ports import IncidentStore, Sought
from opsapi.incidents.settings import IncidentSettings
from opsapi.kit.caller import Call, System
from opsapi.kit.clock import Clock
from opsapi.kit.ids import new_id


class Reported(msgspec.Struct, frozen=True):
    incident: Incident
    created: bool


class Reporter:
    """`report` may be called again and again for what has a key: it opens one incident."""

    def __init__(self, store: IncidentStore, settings: IncidentSettings, clock: Clock) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock

    async def report(self, report: Report, by: Call | System) -> Reported | None:
        """None where it tells nothing new."""
        fresh, now = new_id("inc"), self._clock.now()

        def decide(scene: Scene) -> Sequence[Change]:
            change = accept(scene, report, self._settings, actor_of(by), now, fresh)
            return () if change is None else (change,)

        sought = Sought(
            workspace_id=report.workspace_id,
            keys=keys_of(report),
            type=report.type,
            applications=report.affected_applications,
        )
        written = await self._store.report(sought, decide, by, opened_status=201)
        return Reported(written[0], written[0].id == fresh) if written else None


def actor_of(by: Call | System) -> str:
    return by.caller.account_id if isinstance(by, Call) else by.account_id
