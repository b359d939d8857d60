"""`opsapi audit`: who did what, and the proof that nobody rewrote it."""

from pathlib import Path
from typing import Annotated

import typer

from opsapi.audit.checkpoints import read_file
from opsapi.audit.model import AuditEntry
from opsapi.audit.ports import AuditFilter
from opsapi.audit.verify import AuditReport, verify
from opsapi.cli.context import ConfigOption, JsonOption, with_state
from opsapi.cli.output import err, fail, out, progress, show_json, show_table
from opsapi.wiring import State

app = typer.Typer(no_args_is_help=True, help="List and verify the audit trail.")


@app.command("list")
def list_entries(
    account: Annotated[str | None, typer.Option(help="Only this account's calls.")] = None,
    workspace: Annotated[str | None, typer.Option(help="Only calls on this workspace.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List audit entries, the newest first."""
    wanted = AuditFilter(workspaces=None, account_id=account, workspace_id=workspace)

    async def work(state: State) -> list[AuditEntry]:
        return await state.audit.page(wanted, None, limit)

    found = with_state(config, work)
    if as_json:
        show_json(found)
        return
    show_table(
        ("at", "account", "call", "status", "code", "workspace", "operation"),
        [
            (
                f"{e.at:%Y-%m-%d %H:%M:%S}",
                e.account_id,
                f"{e.method} {e.path}",
                e.status,
                e.error_code,
                e.workspace_id,
                e.operation_id,
            )
            for e in found
        ],
        empty="No entries yet.",
    )


@app.command("verify")
def verify_trail(
    checkpoints: Annotated[
        list[Path] | None, typer.Option(help="Exported checkpoint files; they also prove that no end was cut off.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the whole chain for altered, missing, reordered and cut-off entries. Exit code 3 when it is not sound."""
    exported = []
    for path in checkpoints or []:
        try:
            read = read_file(path)
        except OSError as error:
            fail(f"{path} cannot be read: {error.strerror}")
        exported += read.marks
        if read.unreadable:
            err.print(
                f"{path}: lines {read.unreadable} hold no checkpoint; a crash can leave one torn line, more are a sign"
            )

    async def work(state: State) -> AuditReport:
        return await verify(state.chain, state.chain_keys, state.clock, exported)

    with progress("verifying the audit trail"):
        report = with_state(config, work)
    if as_json:
        show_json(report)
    else:
        _tell(report)
    if not report.verdict.sound:
        raise typer.Exit(3)


def _tell(report: AuditReport) -> None:
    verdict = report.verdict
    if verdict.sound:
        out.print(
            f"sound: {verdict.checked} entries, none altered, missing or out of order; checkpoints vouch for the first "
            f"{verdict.guarded_to}",
            markup=False,
        )
    else:
        err.print(f"[bold red]not sound[/]: {verdict.flaws} flaws in {verdict.checked} entries")
        show_table(
            ("flaw", "place", "to", "entry"),
            [(finding.flaw, finding.seq, finding.last_seq, finding.entry_id) for finding in verdict.findings],
            empty="no findings",
        )
    if report.unlinked:
        err.print(f"{report.unlinked} entries wait to be linked: is the service running?")
