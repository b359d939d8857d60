"""`opsapi workspaces`: which clusters there are, and what rights the service needs on them."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from opsapi.cli.context import ConfigOption, JsonOption, operator, with_state
from opsapi.cli.output import err, fail, out, progress, show_json, show_table
from opsapi.kit.errors import ValidationFailed
from opsapi.wiring import Offline, State, offline
from opsapi.workspaces.access import OPT_IN, AccessReport, Feature, check, features_named, manifest
from opsapi.workspaces.model import Mode, Plan, Workspace
from opsapi.workspaces.ports import ClusterState
from opsapi.workspaces.registration import NewWorkspace

T = TypeVar("T")
app = typer.Typer(no_args_is_help=True, help="Register, list and remove workspaces; print and prove Kubernetes rights.")
FeaturesOption = Annotated[
    str, typer.Option(help=f"Comma-separated: {', '.join(Feature)}. Reading comes with everything.")
]
DEFAULT_FEATURES = ",".join(feature for feature in Feature if feature not in OPT_IN)


def _with_clusters(config: Path | None, work: Callable[[Offline], Awaitable[T]]) -> T:
    async def run(state: State) -> T:
        async with offline(state) as opened:
            return await work(opened)

    return with_state(config, run)


@app.command("list")
def list_workspaces(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the workspaces of the configuration file and the registered ones, without asking their clusters."""

    async def work(opened: Offline) -> list[Workspace]:
        return await opened.workspaces()

    found = _with_clusters(config, work)
    if as_json:
        show_json(
            [
                {"id": w.id, "name": w.name, "organization": w.organization, "plan": w.plan, "mode": w.mode,
                 "namespaces": w.namespaces, "source": w.source}
                for w in found
            ]
        )  # fmt: skip
        return
    show_table(
        ("id", "name", "plan", "mode", "namespaces", "from"),
        [(w.id, w.name, w.plan, w.mode, " ".join(w.namespaces) or "(all)", w.source) for w in found],
        empty="No workspaces yet. Add one to the configuration file, or: opsapi workspaces add --help",
    )


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What people call it.", show_default=False)],
    kubeconfig: Annotated[Path, typer.Option(help="A self-contained kubeconfig; it is stored encrypted.")],
    workspace_id: Annotated[str | None, typer.Option("--id", help="What paths name it by; made up without it.")] = None,
    context: Annotated[str, typer.Option(help="Instead of the kubeconfig's current context.")] = "",
    acting_kubeconfig: Annotated[Path | None, typer.Option(help="Other credentials for acting.")] = None,
    organization: Annotated[str, typer.Option(help="Whose workspace it is.")] = "",
    plan: Annotated[Plan, typer.Option(help="Where limits come from: nodes or ResourceQuotas.")] = Plan.DEDICATED,
    mode: Annotated[Mode, typer.Option(help="Whether the service may act there.")] = Mode.OBSERVE,
    namespace: Annotated[list[str] | None, typer.Option(help="Only this namespace; repeatable.")] = None,
    config: ConfigOption = None,
) -> None:
    """Register a workspace, as POST /internal/v1/workspaces does. A running service serves it within seconds."""
    new = NewWorkspace(
        id=workspace_id,
        name=name,
        organization=organization,
        plan=plan,
        mode=mode,
        namespaces=tuple(namespace or ()),
        kubeconfig=_read(kubeconfig),
        context=context,
        acting_kubeconfig=_read(acting_kubeconfig) if acting_kubeconfig else None,
    )

    async def work(opened: Offline) -> Workspace:
        return await opened.registry.register(new, operator("workspaces add"))

    with progress("checking the kubeconfig"):
        made = _with_clusters(config, work)
    out.print(made.id, markup=False)
    err.print(f"Prove its rights: opsapi workspaces check {made.id}", markup=False)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'not text'}")


@app.command()
def remove(
    workspace: Annotated[str, typer.Argument(help="The workspace's id.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigOption = None,
) -> None:
    """Remove a registration and erase its credentials. Nothing changes in its cluster."""
    if not yes:
        typer.confirm(f"Remove {workspace} and erase its stored credentials?", abort=True)

    async def work(opened: Offline) -> None:
        await opened.registry.remove(workspace, operator("workspaces remove"))

    _with_clusters(config, work)
    out.print(f"{workspace} is removed", markup=False)


@app.command("check")
def check_rights(
    workspace: Annotated[str, typer.Argument(help="The workspace's id.", show_default=False)],
    features: FeaturesOption = DEFAULT_FEATURES,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the cluster what the credentials may do, feature by feature. Exit code 3 when a right is missing."""
    wanted = _features(features)

    async def work(opened: Offline) -> tuple[AccessReport, ClusterState]:
        cluster = await opened.connect(workspace)
        if cluster is None:
            fail(f"no workspace {workspace}", then="`opsapi workspaces list` shows what there is")
        return await check(cluster, wanted), await cluster.ask()

    with progress(f"asking the cluster of {workspace}"):
        report, state = _with_clusters(config, work)
    if as_json:
        show_json(report)
    else:
        out.print(f"Kubernetes {state.version}", markup=False)
        for feature in report.works:
            out.print(f"ok       {feature}", markup=False)
        for feature in report.breaks:
            out.print(f"missing  {feature}", markup=False)
        show_table(
            ("feature", "needs", "on", "namespace", "credentials"),
            [(m.feature, m.verb, m.resource, m.namespace or "(everywhere)", m.credentials) for m in report.missing],
            empty="Every right is there.",
        )
    if report.missing:
        err.print("Grant them: opsapi workspaces rbac --help", markup=False)
        raise typer.Exit(3)


@app.command()
def rbac(
    features: FeaturesOption = DEFAULT_FEATURES,
    namespace: Annotated[
        list[str] | None, typer.Option(help="Roles in this namespace instead of a ClusterRole; repeatable.")
    ] = None,
    nodes: Annotated[bool, typer.Option(help="With --namespace: also a ClusterRole to read nodes.")] = False,
    account: Annotated[str, typer.Option(help="The ServiceAccount's name.")] = "opsapi",
    account_namespace: Annotated[str, typer.Option(help="The ServiceAccount's namespace.")] = "opsapi",
) -> None:
    """Print the smallest Kubernetes rights that the features need, ready for `kubectl apply -f -`."""
    text = manifest(
        _features(features),
        namespaces=tuple(namespace or ()),
        account=account,
        account_namespace=account_namespace,
        cluster_wide=nodes,
    )
    typer.echo(text, nl=False)


def _features(text: str) -> list[Feature]:
    try:
        return features_named(part.strip() for part in text.split(",") if part.strip())
    except ValidationFailed as error:
        fail(error.message)
