"""The list of a workspace's applications."""

from collections.abc import Callable, Iterator
from datetime import datetime
from enum import StrEnum

import msgspec

from opsapi.applications.identity import ApplicationIndex, ApplicationRef, Order
from opsapi.applications.images import main_container
from opsapi.kit.errors import ValidationFailed
from opsapi.workspaces.objects import CronJob
from opsapi.workspaces.states import ApplicationState, replicas_of
from opsapi.workspaces.tallies import Application


class ApplicationKind(StrEnum):
    DEPLOYMENT = "Deployment"
    STATEFUL_SET = "StatefulSet"
    DAEMON_SET = "DaemonSet"
    CRON_JOB = "CronJob"


class ReplicaCounts(msgspec.Struct, frozen=True):
    desired: int
    ready: int


class ListedApplication(msgspec.Struct, frozen=True, kw_only=True):
    """`replicas` is null for a CronJob. `issues`: how many findings concern it."""

    id: str
    name: str
    kind: str
    project: str
    status: ApplicationState
    replicas: ReplicaCounts | None
    image: str | None
    issues: int
    created_at: datetime | None


class ApplicationList(msgspec.Struct, frozen=True, kw_only=True):
    workspace_id: str
    applications: list[ListedApplication]


class ListFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What is None is not asked for. `labels` must all be there with these values."""

    project: str | None = None
    kind: ApplicationKind | None = None
    status: ApplicationState | None = None
    name: str | None = None
    """A prefix of the name."""
    labels: dict[str, str] = {}


def parse_labels(text: str) -> dict[str, str]:
    """`team=web,tier=front`. Raises ValidationFailed."""
    labels: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ValidationFailed({"label": "must be like team=web,tier=front"})
        labels[key.strip()] = value.strip()
    return labels


def listed(
    index: ApplicationIndex, wanted: ListFilter, after: Order | None, limit: int
) -> tuple[ApplicationList, Order | None]:
    """A page in the order of project, name and kind, and where the next one starts; None at the end."""
    page: list[ListedApplication] = []
    last: Order | None = None
    for ref, application in _matching(index, wanted, after):
        if len(page) == limit:
            return ApplicationList(workspace_id=index.view.workspace.id, applications=page), last
        page.append(_listed(ref, application, len(index.view.tallies.findings_of(ref.uid))))
        last = ref.order
    return ApplicationList(workspace_id=index.view.workspace.id, applications=page), None


def _matching(
    index: ApplicationIndex, wanted: ListFilter, after: Order | None
) -> Iterator[tuple[ApplicationRef, Application]]:
    judged = index.view.settle().applications
    tests: list[Callable[[ApplicationRef, Application], bool]] = []
    if wanted.kind is not None:
        tests.append(lambda ref, _: ref.kind.kind == wanted.kind)
    if wanted.status is not None:
        tests.append(lambda _, application: application.verdict.state is wanted.status)
    if wanted.name is not None:
        prefix = wanted.name
        tests.append(lambda ref, _: ref.name.startswith(prefix))
    if wanted.labels:
        pairs = wanted.labels.items()
        tests.append(lambda _, application: pairs <= application.object.metadata.labels.items())
    for ref in index.after(after, wanted.project or ""):
        application = judged.get(ref.uid)
        if application is not None and all(test(ref, application) for test in tests):
            yield ref, application


def _listed(ref: ApplicationRef, application: Application, issues: int) -> ListedApplication:
    held = application.object
    replicas = None
    if isinstance(held, CronJob):
        template = held.spec.job_template.spec.template
    else:
        counts = replicas_of(application.kind, held)
        replicas = ReplicaCounts(counts.desired, counts.ready)
        template = held.spec.template
    main = main_container(ref.name, template.spec.containers)
    return ListedApplication(
        id=ref.id,
        name=ref.name,
        kind=ref.kind.kind,
        project=ref.namespace,
        status=application.verdict.state,
        replicas=replicas,
        image=main.image if main is not None else None,
        issues=issues,
        created_at=held.metadata.creation_timestamp,
    )
