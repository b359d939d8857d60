"""The service's settings, by group; a field's text stands under it, and docs/configuration.md is made of those."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from opsapi.applications.costs import CostSettings
from opsapi.applications.scaling_steps import ScalingSettings
from opsapi.backups.settings import BackupSettings
from opsapi.http.settings import HttpSettings
from opsapi.incidents.settings import IncidentSettings
from opsapi.kit.secret import Secret
from opsapi.operations.settings import EngineSettings
from opsapi.playbooks.cleaning.model import CleaningSettings
from opsapi.playbooks.healing.model import HealingSettings
from opsapi.playbooks.optimizing.model import OptimizingSettings
from opsapi.policy.model import PolicySettings
from opsapi.telemetry.settings import MetricsSettings
from opsapi.webhooks.settings import WebhookSettings
from opsapi.workspaces.model import Mode, Plan

Seconds = Annotated[float, Meta(gt=0, le=3600)]


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Base of a group of settings."""


class DatabaseSettings(Group, frozen=True):
    """Where the service keeps its state."""

    url: Secret = Secret("sqlite+aiosqlite:///opsapi.db")
    """`sqlite+aiosqlite:///FILE` (one process) or `postgresql+asyncpg://USER:PASSWORD@HOST/NAME` (any number)."""
    pool_size: Annotated[int, Meta(ge=1, le=200)] = 10
    """Connections held to PostgreSQL."""


class KeySettings(Group, frozen=True):
    """Secrets of the installation. None has a default; make one with `openssl rand -base64 32`."""

    audit: Secret
    """32 bytes in base64: the key of the audit trail's HMAC chain. Whoever has it can forge the trail."""
    audit_previous: tuple[Secret, ...] = ()
    """Earlier audit keys: they still verify what they linked."""
    encryption: tuple[Secret, ...] = ()
    """32 bytes in base64 each: encrypt uploaded kubeconfigs and webhooks' signing secrets. The first encrypts, all
    decrypt: put a new one in front to rotate. Without one, workspaces can only be registered in this file, and webhooks
    not at all."""


class ActingSettings(Group, frozen=True):
    """Separate credentials for acting; reading keeps the workspace's own."""

    kubeconfig: Path
    """A kubeconfig file."""
    context: str = ""
    """Empty takes the kubeconfig's current context."""


class WorkspaceSettings(Group, frozen=True):
    """A workspace that the service serves."""

    id: Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
    """What paths name it by: lower-case letters, digits and hyphens."""
    name: str = ""
    """Shown to people; empty takes the id."""
    organization: str = ""
    """Whose workspace it is."""
    plan: Plan = Plan.DEDICATED
    """`dedicated` takes limits from the nodes, `shared` from ResourceQuotas (and shows nothing of other tenants)."""
    mode: Mode = Mode.OBSERVE
    """`observe` never changes anything, `propose` plans only (dry runs), `act` acts."""
    namespaces: tuple[str, ...] = ()
    """Only these; empty means the whole cluster."""
    kubeconfig: Path | None = None
    """A kubeconfig file; may use exec plugins and paths, unlike one that comes through the API."""
    context: str = ""
    """Empty takes the kubeconfig's current context."""
    in_cluster: bool = False
    """Use the service's own ServiceAccount instead of a kubeconfig."""
    act: ActingSettings | None = None
    """Other credentials for acting than for reading."""
    metrics: MetricsSettings | None = None
    """Where its metrics are, beyond metrics.k8s.io."""
    created_at: datetime | None = None
    """Shown as the workspace's creation; without it, when its oldest namespace was made."""

    def __post_init__(self) -> None:
        if self.in_cluster == (self.kubeconfig is not None):
            raise ValueError(f"workspace {self.id!r} needs exactly one of kubeconfig and in_cluster: true")


class KubernetesSettings(Group, frozen=True):
    """How clusters are read."""

    stale_after_seconds: Seconds = 60
    """Answers from a cache that was not confirmed for longer say so; changes re-read first in any case."""
    request_timeout_seconds: Seconds = 20
    """For one call to an API server."""
    usage_interval_seconds: Seconds = 15
    """Between two readings of metrics.k8s.io."""
    upload_allow: tuple[str, ...] = ()
    """Hosts and CIDRs on private or loopback addresses that an uploaded kubeconfig may name as its server."""


class LimitSettings(Group, frozen=True):
    """Where rate limits are counted. How high they are stands under `http.limits`."""

    redis_url: Secret | None = None
    """`redis://HOST:6379/0`, `rediss://…` (TLS) or `unix://PATH`: replicas share their limits through it. Without it,
    and while it is away, each replica counts for itself."""
    redis_ca_file: Path | None = None
    """PEM certificates of the authorities that signed the server's, for `rediss://`; empty takes the system's."""
    redis_timeout_seconds: Annotated[float, Meta(gt=0, le=10)] = 0.25
    """The longest that a request waits for Redis."""


class AuditSettings(Group, frozen=True):
    """The audit trail."""

    queue: Annotated[int, Meta(ge=100, le=1_000_000)] = 20_000
    """Entries that may wait to be written; beyond it calls are refused, so that nothing goes unaudited."""
    checkpoint_file: Path | None = None
    """Where the chain's checkpoints are appended, best on another machine's disk; empty writes them to the log."""


class Settings(Group, frozen=True):
    """The whole file."""

    keys: KeySettings
    http: HttpSettings = HttpSettings()
    database: DatabaseSettings = DatabaseSettings()
    workspaces: tuple[WorkspaceSettings, ...] = ()
    kubernetes: KubernetesSettings = KubernetesSettings()
    policy: PolicySettings = PolicySettings()
    policy_file: Path | None = None
    """The policy in a file of its own, with the keys of `policy`: read again whenever it changes, while the service
    runs. A file with a mistake changes nothing, and `GET /policy` says so."""
    scaling: ScalingSettings = ScalingSettings()
    healing: HealingSettings = HealingSettings()
    optimizing: OptimizingSettings = OptimizingSettings()
    costs: CostSettings = CostSettings()
    cleaning: CleaningSettings = CleaningSettings()
    backups: BackupSettings = BackupSettings()
    audit: AuditSettings = AuditSettings()
    operations: EngineSettings = EngineSettings()
    webhooks: WebhookSettings = WebhookSettings()
    incidents: IncidentSettings = IncidentSettings()
    limits: LimitSettings = LimitSettings()

    def __post_init__(self) -> None:
        ids = [workspace.id for workspace in self.workspaces]
        if self.policy_file is not None and self.policy != PolicySettings():
            raise ValueError("policy: stands both here and in policy_file; keep one")
        if twice := {one for one in ids if ids.count(one) > 1}:
            raise ValueError(f"workspaces: the id {sorted(twice)[0]!r} stands twice")
