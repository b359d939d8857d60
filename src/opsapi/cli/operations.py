"""`opsapi operations`: what was and is being carried out."""

from datetime import datetime
from typing import Annotated

import typer

from opsapi.cli.context import ConfigOption, JsonOption, operator, with_state
from opsapi.cli.output import fail, out, show_json, show_table
from opsapi.operations.model import Operation
from opsapi.operations.model import State as OperationState
from opsapi.operations.ports import OperationFilter
from opsapi.wiring import State
from opsapi.wiring.deciding import offline_decider

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
    if found.approval is not None:
        out.print(f"  waits for a person: {', '.join(found.approval.rules)}; plan {found.plan_hash}", markup=False)
        for message in found.approval.messages:
            out.print(f"    {message}", markup=False)
    show_table(
        ("step", "state", "attempts", "message"),
        [(step.name, step.state, step.attempts, step.message) for step in found.steps],
        empty="It has no steps.",
    )


@app.command()
def cancel(
    operation: Annotated[str, typer.Argument(help="The operation's id, `op-…`.", show_default=False)],
    config: ConfigOption = None,
) -> None:
    """Cancel an operation: what runs stops before its next effect."""

    async def work(opened: State) -> Operation:
        return await opened.ledger.cancel(operation, operator(f"operations cancel {operation}"))

    held = with_state(config, work)
    stopping = "" if held.state.final else ", and stops before its next effect"
    out.print(f"{held.id} is {held.state}{stopping}", markup=False)


@app.command()
def rollback(
    operation: Annotated[str, typer.Argument(help="The operation's id, `op-…`.", show_default=False)],
    config: ConfigOption = None,
) -> None:
    """Have a running service take back what an ended operation did, where it still is as it was written."""

    async def work(opened: State) -> Operation:
        held = await opened.ledger.get(operation)
        if held is None:
            fail(f"no operation {operation}", then="`opsapi operations list` shows what there is")
        return await offline_decider(opened).rollback(held, operator(f"operations rollback {operation}"))

    held = with_state(config, work)
    out.print(f"{held.id} is {held.state}: a service that runs will undo it", markup=False)


def _moment(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else "-"
