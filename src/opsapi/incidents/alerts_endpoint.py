"""POST /alerts: Alertmanager's notifications become incidents."""

import msgspec

from opsapi.incidents.alertmanager import AlertsBody, Notice, WireAlert, alert_of
from opsapi.incidents.examples import ALERTS as EXAMPLE
from opsapi.incidents.examples import RECEIVED
from opsapi.incidents.matching import Matcher
from opsapi.incidents.model import Alert, Incident
from opsapi.incidents.ports import IncidentStore
from opsapi.incidents.receiving import Receipt, sought_of
from opsapi.incidents.settings import IncidentSettings
from opsapi.kit.caller import Call
from opsapi.kit.clock import Clock
from opsapi.kit.endpoint import ALERTS, Example, Idempotency, NoParams, Reply, Scope, endpoint
from opsapi.kit.errors import DependencyUnavailable, ValidationFailed
from opsapi.kit.ids import new_id
from opsapi.kit.permissions import Permission
from opsapi.workspaces.ports import Cluster, Clusters

_MOST_TOLD = 20


class RejectedAlert(msgspec.Struct, frozen=True):
    """`index` in the notification's list."""

    index: int
    reason: str


class TouchedIncident(msgspec.Struct, frozen=True):
    incident_id: str
    state: str


class ReceivedAlerts(msgspec.Struct, frozen=True, kw_only=True):
    """`rejected`: alerts whose workspace cannot be told, the first ones of them."""

    accepted: int
    rejected: list[RejectedAlert]
    incidents: list[TouchedIncident]


class AlertEndpoints:
    def __init__(self, store: IncidentStore, clusters: Clusters, settings: IncidentSettings, clock: Clock) -> None:
        self._store = store
        self._clusters = clusters
        self._settings = settings
        self._clock = clock

    @endpoint(
        "POST",
        "/internal/v1/alerts",
        permission=Permission.INCIDENT_WRITE,
        scope=Scope.SYSTEM,
        limit=ALERTS,
        idempotency=Idempotency.NATURAL,
        summary="Receive alerts from Alertmanager",
        tag="Incidents",
        answer=ReceivedAlerts,
        errors=(ValidationFailed, DependencyUnavailable),
        examples=(Example("received", response=RECEIVED, request=EXAMPLE),),
        basic_auth=True,
    )
    async def receive_alerts(self, call: Call, _params: NoParams, body: AlertsBody) -> Reply[ReceivedAlerts]:
        """Takes Alertmanager's own webhook payload (version 4); Basic auth with the account's id and token is enough.
        Alerts belong to the workspace that the configured label names, if the account holds `incident:write` there,
        else to the one that the account is bound to. A group of alerts is one incident: repeats update it, it is
        resolved when all its alerts are, and what fires again soon after reopens it. Repeating a notification changes
        nothing."""
        most = self._settings.max_alerts
        if len(body.alerts) > most:
            told = f"holds {len(body.alerts)} alerts, at most {most} are taken: set max_alerts of the webhook_config"
            raise ValidationFailed({"alerts": told})
        notices, rejected = self._sorted(call, body)
        if body.alerts and not notices:
            faults = {f"alerts[{one.index}].labels": one.reason for one in rejected[:_MOST_TOLD]}
            raise ValidationFailed(faults)
        touched: list[Incident] = []
        for notice in notices:
            touched += await self._receive(call, notice)
        if touched:
            call.audit.resource = ", ".join(f"incident/{one.id}" for one in touched[:_MOST_TOLD])
        return Reply(
            ReceivedAlerts(
                accepted=sum(len(notice.alerts) for notice in notices),
                rejected=rejected[:_MOST_TOLD],
                incidents=[TouchedIncident(one.id, one.state.value) for one in touched],
            ),
            truncated=len(rejected) > _MOST_TOLD,
            warnings=[f"{len(rejected)} alerts name no workspace that this account may report in"] if rejected else [],
        )

    async def _receive(self, call: Call, notice: Notice) -> list[Incident]:
        now, actor = self._clock.now(), call.caller.account_id
        call.audit.workspace_id = notice.workspace_id
        return await self._store.report(
            sought_of(notice),
            lambda scene: Receipt(scene, notice, self._settings, actor, now, lambda: new_id("inc")).changes(),
            call,
        )

    def _sorted(self, call: Call, body: AlertsBody) -> tuple[list[Notice], list[RejectedAlert]]:
        now = self._clock.now()
        placed: dict[str, list[Alert]] = {}
        matchers: dict[str, Matcher] = {}
        rejected: list[RejectedAlert] = []
        own = self._bound(call)
        for index, wire in enumerate(body.alerts):
            cluster, why_not = self._place(call, wire, own)
            if cluster is None:
                rejected.append(RejectedAlert(index, why_not))
                continue
            workspace_id = cluster.workspace.id
            matcher = matchers.setdefault(workspace_id, Matcher(cluster))
            alert = alert_of(wire, self._settings.severity_label, matcher.application(wire.labels), now)
            placed.setdefault(workspace_id, []).append(alert)
        notices = [
            Notice(workspace_id=one, group=body.group_key, alerts=tuple(alerts), truncated=body.truncated_alerts > 0)
            for one, alerts in sorted(placed.items())
        ]
        return notices, rejected

    def _bound(self, call: Call) -> str:
        """The one workspace that the account is bound to, "" where it is to none or to several."""
        workspaces = call.caller.grants.workspaces(Permission.INCIDENT_WRITE)
        return next(iter(workspaces)) if workspaces is not None and len(workspaces) == 1 else ""

    def _place(self, call: Call, wire: WireAlert, own: str) -> tuple[Cluster | None, str]:
        """The alert's workspace, or why there is none. What exists but is not granted is told like what does not."""
        label = self._settings.workspace_label
        named = wire.labels.get(label, "") if label else ""
        if named:
            granted = call.caller.grants.allows(Permission.INCIDENT_WRITE, named)
            cluster = self._clusters.find(named) if granted else None
            return cluster, f"{label} names no workspace that this account may report incidents in"
        if not own:
            missing = f"no label {label}" if label else "no workspace_label is configured"
            return None, f"{missing}, and the account is not bound to one workspace alone"
        return self._clusters.find(own), f"workspace {own}, which the account is bound to, is not served"
