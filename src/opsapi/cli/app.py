"""The command line's root."""

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from opsapi import __version__
from opsapi.cli import accounts, audit, guardrails, operations, webhooks, workspaces
from opsapi.cli.config import app as config_app
from opsapi.cli.demo import demo
from opsapi.cli.output import out
from opsapi.cli.serve import serve
from opsapi.http.openapi import openapi_document
from opsapi.http.settings import HttpSettings
from opsapi.wiring import DECLARATIONS

app = typer.Typer(
    name="opsapi",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="The guarded control surface between AI agents and Kubernetes. Try it: opsapi demo",
)
app.command()(serve)
app.command()(demo)
app.add_typer(accounts.app, name="accounts")
app.add_typer(workspaces.app, name="workspaces")
app.add_typer(operations.app, name="operations")
app.add_typer(guardrails.approvals, name="approvals")
app.command()(guardrails.pause)
app.command()(guardrails.resume)
app.add_typer(guardrails.policy, name="policy")
app.add_typer(audit.app, name="audit")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(config_app, name="config")


@app.command()
def openapi(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; standard output without it.")] = None,
) -> None:
    """Print the OpenAPI 3.1 document."""
    text = msgspec.json.encode(openapi_document(DECLARATIONS, HttpSettings()), order="deterministic")
    if output is None:
        sys.stdout.write(text.decode() + "\n")
    else:
        output.write_bytes(text + b"\n")


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        out.print(f"opsapi {__version__}", markup=False)
        raise typer.Exit
