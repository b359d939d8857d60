"""How the command line speaks: results on stdout, progress and errors on stderr, errors with what to do next."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.table import Table

out = Console(soft_wrap=True, highlight=False)
PIPED_WIDTH = 1000
"""No id is broken over two lines for a program that reads a table."""
err = Console(stderr=True, soft_wrap=True, highlight=False)


def fail(message: str, *, then: str = "", code: int = 1) -> NoReturn:
    """Ends the command: what is wrong, and what to do next."""
    err.print(f"[bold red]error:[/] {_plain(message)}")
    if then:
        err.print(f"  {_plain(then)}")
    raise typer.Exit(code)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


@contextmanager
def progress(doing: str) -> Iterator[None]:
    """A spinner on a terminal, one line elsewhere."""
    if err.is_terminal:
        with err.status(doing):
            yield
    else:
        err.print(f"{_plain(doing)} …")
        yield


def show_json(value: Any) -> None:
    sys.stdout.write(json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=False) + "\n")


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    if not rows:
        err.print(_plain(empty))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for position, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=position == 0)
    for row in rows:
        table.add_row(*(_plain("-" if cell is None or cell == "" else str(cell)) for cell in row))
    console = out if out.is_terminal else Console(file=out.file, width=PIPED_WIDTH, highlight=False)
    console.print(table)
