"""An application's id: what its label says, else made from where it stands, so that it survives re-creation."""

import re
from functools import lru_cache

from opsapi.kit.ids import stable_id
from opsapi.workspaces.objects import Kind, ObjectMeta

APPLICATION_ID_LABEL = "hexabase.ai/application-id"
_LABELLED = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def application_id(workspace_id: str, kind: Kind, meta: ObjectMeta) -> str:
    """Tenants write labels: one that could not stand in a path is passed over."""
    labelled = meta.labels.get(APPLICATION_ID_LABEL, "")
    if labelled and _LABELLED.fullmatch(labelled):
        return labelled
    return _placed(workspace_id, meta.namespace, kind.kind, meta.name)


@lru_cache(maxsize=65_536)
def _placed(workspace_id: str, namespace: str, kind: str, name: str) -> str:
    return stable_id("app", workspace_id, namespace, kind, name)
