"""What an operator can set about backups."""

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from opsapi.kit.duration import parse_duration
from opsapi.kit.secret import Secret

Seconds = Annotated[float, Meta(gt=0, le=86400)]


class EngineChoice(StrEnum):
    AUTO = "auto"
    """Velero where the cluster serves `velero.io/v1`, else manifests."""
    VELERO = "velero"
    MANIFESTS = "manifests"


class BackupStoreSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where manifests are kept. Credentials that are not given come from the environment, as each cloud's own tools
    take them."""

    url: str = ""
    """`file:///folder`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`; empty: no store, and
    without Velero no backups."""
    endpoint: str = ""
    """Of a store that speaks S3 elsewhere than at AWS."""
    region: str = ""
    """S3's region; empty takes `us-east-1`."""
    access_key_id: Secret | None = None
    """S3's access key."""
    secret_access_key: Secret | None = None
    """S3's secret key."""
    allow_http: bool = False
    """Allows an endpoint without TLS."""
    timeout_seconds: Seconds = 30
    """For one request to the store."""


class RetentionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A name that callers may give as `retention_policy`, and how long such backups are kept."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
    """What callers say."""
    keep: str
    """A duration: `720h`, `30d`. Velero's own backups get it as their ttl."""

    def __post_init__(self) -> None:
        if parse_duration(self.keep).total_seconds() < 3600:
            raise ValueError(f"retention policy {self.name!r} keeps backups for less than an hour")


class BackupSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Times in seconds."""

    engine: EngineChoice = EngineChoice.AUTO
    """`auto` (Velero where it is served), `velero`, or `manifests`."""
    store: BackupStoreSettings = BackupStoreSettings()
    """Where manifests are kept."""
    secrets: bool = False
    """Whether backups hold Secrets: then their contents are read, and sealed with `keys.encryption` before they leave.
    With Velero, whether its backups include them."""
    retention: tuple[RetentionSettings, ...] = (
        RetentionSettings(name="standard", keep="720h"),
        RetentionSettings(name="short", keep="168h"),
        RetentionSettings(name="long", keep="8760h"),
    )
    """What callers may give as `retention_policy`."""
    velero_namespace: str = "velero"
    """Where Velero's own objects stand."""
    velero_location: str = ""
    """The BackupStorageLocation; empty takes the default one."""
    snapshot_class: str = ""
    """The VolumeSnapshotClass; empty takes the driver's default one."""
    snapshot_seconds: Seconds = 600
    """How long a volume's snapshot may take until it is ready to use; then the volume counts as not captured."""
    timeout_seconds: Seconds = 3600
    """How long a backup or restore may take."""
    all_timeout_seconds: Annotated[float, Meta(gt=0, le=7 * 86400)] = 21600
    """How long `backup_all` may take over all applications."""
    ready_seconds: Seconds = 300
    """How long an activated application may take to become ready; then the restore is undone."""
    poll_seconds: Annotated[float, Meta(gt=0, le=60)] = 2
    """How often Velero, snapshots and restored applications are looked at."""
    purge_seconds: Seconds = 3600
    """How often what has expired is looked for."""

    def __post_init__(self) -> None:
        names = [one.name for one in self.retention]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"backups.retention: {sorted(twice)[0]!r} stands twice")
        if "standard" not in names:
            raise ValueError("backups.retention needs a policy 'standard', which callers get by default")

    def keep_seconds(self, policy: str) -> float | None:
        """None for a policy that is not configured."""
        kept = next((one.keep for one in self.retention if one.name == policy), None)
        return None if kept is None else parse_duration(kept).total_seconds()
