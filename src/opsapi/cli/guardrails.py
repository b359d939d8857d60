"""`opsapi approvals`, `opsapi pause`, `opsapi resume` and `opsapi policy`: people at the brake."""

from pathlib import Path
from typing import Annotated

import typer

from opsapi.cli.context import ConfigOption, JsonOption, operator, with_state
from opsapi.cli.output import fail, out, show_json, show_table
from opsapi.operations.model import Operation
from opsapi.operations.model import State as OperationState
from opsapi.operations.ports import OperationFilter
from opsapi.policy.model import EVERYWHERE, Pause
from opsapi.settings.policy_file import read_policy
from opsapi.settings.source import InvalidConfiguration
from opsapi.wiring import State
from opsapi.wiring.deciding import offline_decider

approvals = typer.Typer(no_args_is_help=True, help="Decide what waits for a person.")
policy = typer.Typer(no_args_is_help=True, help="The guardrails' file.")
OperationArgument = Annotated[str, typer.Argument(help="The operation's id, `op-…`.", show_default=False)]
ReasonOption = Annotated[str | None, typer.Option(help="Kept in the audit.")]
WorkspaceOption = Annotated[str | None, typer.Option(help="Only this workspace; everything without it.")]


@approvals.command("list")
def list_approvals(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List what waits for a decision, with the rules that ask for it."""
    wanted = OperationFilter(workspaces=None, states=frozenset({OperationState.PENDING_APPROVAL}), limit=500)

    async def work(opened: State) -> list[Operation]:
        return await opened.ledger.find(wanted)

    found = with_state(config, work)
    if as_json:
        show_json(found)
        return
    show_table(
        ("id", "operation", "workspace", "resource", "asked by", "because", "expires"),
        [
            (
                one.id,
                one.action,
                one.workspace_id,
                one.resource_id,
                one.requested_by,
                ", ".join(one.approval.rules) if one.approval else "",
                f"{one.approval_expires_at:%Y-%m-%d %H:%M:%S}" if one.approval_expires_at else "-",
            )
            for one in found
        ],
        empty="Nothing waits for a decision.",
    )


@approvals.command()
def approve(
    operation: OperationArgument,
    plan_hash: Annotated[
        str, typer.Option(help="Of the plan that you looked at: `opsapi operations show ID`.", show_default=False)
    ],
    config: ConfigOption = None,
) -> None:
    """Approve exactly the plan with this hash. The worker plans it again first and does nothing where it would be
    another by then."""

    async def work(opened: State) -> Operation:
        held = await _found(opened, operation)
        return await offline_decider(opened).approve(held, operator(f"approvals approve {operation}"), plan_hash)

    approved = with_state(config, work)
    out.print(f"{approved.id} is {approved.state}", markup=False)


@approvals.command()
def reject(operation: OperationArgument, reason: ReasonOption = None, config: ConfigOption = None) -> None:
    """Reject it; the operation ends as cancelled."""

    async def work(opened: State) -> Operation:
        held = await _found(opened, operation)
        return await offline_decider(opened).reject(held, operator(f"approvals reject {operation}"), reason)

    rejected = with_state(config, work)
    out.print(f"{rejected.id} is {rejected.state}", markup=False)


async def _found(opened: State, operation_id: str) -> Operation:
    held = await opened.ledger.get(operation_id)
    if held is None:
        fail(f"no operation {operation_id}", then="`opsapi approvals list` shows what waits")
    return held


def pause(workspace: WorkspaceOption = None, reason: ReasonOption = None, config: ConfigOption = None) -> None:
    """Stop everything, or one workspace: cancel what waits, stop what runs before its next effect, begin nothing."""
    scope = workspace or EVERYWHERE

    async def work(opened: State) -> Pause:
        return await opened.ledger.pause(scope, operator(f"pause {scope}"), reason)

    held = with_state(config, work)
    where = "everything" if held.scope == EVERYWHERE else held.scope
    out.print(f"{where} is paused since {held.paused_at:%Y-%m-%d %H:%M:%S} by {held.paused_by}", markup=False)


def resume(workspace: WorkspaceOption = None, config: ConfigOption = None) -> None:
    """Let work begin again."""
    scope = workspace or EVERYWHERE

    async def work(opened: State) -> bool:
        return await opened.ledger.resume(scope, operator(f"resume {scope}"))

    where = "everything" if scope == EVERYWHERE else scope
    out.print(f"{where} {'is resumed' if with_state(config, work) else 'was not paused'}", markup=False)


@policy.command()
def check(file: Annotated[Path, typer.Argument(help="A policy file.", show_default=False)]) -> None:
    """Read a policy file and say everything that is wrong with it."""
    try:
        read_policy(file)
    except InvalidConfiguration as invalid:
        fail(f"{file} has mistakes:\n  " + "\n  ".join(invalid.problems), then="docs/configuration.md lists the keys")
    out.print(f"{file} is a valid policy", markup=False)
