"""`opsapi operations`: what was and is being carried out."""

from datetime import datetime
from typing import Annotated

import typer

from opsapi.cli.context import ConfigOption, JsonOption, with_state
from opsapi.cli.output import fail, out, show_json, show_table
from opsapi.operations.model import Operation
from opsapi.operations.model import State as OperationState
from opsapi.operations.ports import OperationFilter
from opsapi.wiring import State

app = typer.Typer(no_args_is_help=True, help="List and show operations.")


@app.command("list")
def list_operations(
    workspace: Annotated[str | None, typer.Option(help="Only this workspace's.")] = None,
    state: Annotated[OperationState | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List operations, the newest first."""
    wanted = OperationFilter(
        workspaces=frozenset({workspace}) if workspace else None,
        states=frozenset({state}) if state else None,
        limit=limit,
    )

    async def work(opened: State) -> list[Operation]:
        return await opened.ledger.find(wanted)

    found = with_state(config, work)
    if as_json:
        show_json(found)
        return
    show_table(
        ("id", "operation", "workspace", "state", "outcome", "by", "created"),
        [(o.id, o.action, o.workspace_id, o.state, o.outcome, o.requested_by, _moment(o.created_at)) for o in found],
        empty="No operations yet.",
    )


@app.command()
def show(
    operation: Annotated[str, typer.Argument(help="The operation's id, `op-…`.", show_default=False)],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one operation with its steps."""

    async def work(opened: State) -> Operation:
        found = await opened.ledger.get(operation)
        if found is None:
            fail(f"no operation {operation}", then="`opsapi operations list` shows what there is")
        return found

    found = with_state(config, work)
    if as_json:
        show_json(found)
        return
    out.print(f"{found.id}  {found.action} in {found.workspace_id}: {found.state}", markup=False)
    if found.error is not None:
        out.print(f"  {found.error.code}: {found.error.message}", markup=False)
    show_table(
        ("step", "state", "attempts", "message"),
        [(step.name, step.state, step.attempts, step.message) for step in found.steps],
        empty="It has no steps.",
    )


def _moment(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else "-"
