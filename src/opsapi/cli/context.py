"""What every command shares: the configuration, and a state opened for as long as the command runs."""

import asyncio
import getpass
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from msgspec import structs

from opsapi.adapters.sql.urls import normal_url
from opsapi.cli.output import fail
from opsapi.kit.caller import System
from opsapi.kit.errors import DependencyUnavailable, OpsError
from opsapi.kit.secret import Secret
from opsapi.settings.model import Settings
from opsapi.settings.source import InvalidConfiguration, load
from opsapi.wiring import State, opened_state

T = TypeVar("T")

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="OPSAPI_CONFIG", help="The configuration file; docs/configuration.md."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table for people.")]


def read_settings(config: Path | None) -> Settings:
    """A relative database file starts at the configuration's folder, wherever the command is given."""
    try:
        return _anchored(load(Settings, config), config.resolve().parent if config else Path.cwd())
    except InvalidConfiguration as invalid:
        source = str(config) if config else "the environment (no --config was given)"
        fail(
            f"{source} is not a valid configuration:\n  " + "\n  ".join(invalid.problems),
            then="docs/configuration.md lists every key; `opsapi config check` tries it out",
            code=2,
        )


def _anchored(settings: Settings, folder: Path) -> Settings:
    try:
        url = normal_url(settings.database.url.reveal())
    except ValueError:
        return settings  # refused where it is opened, in the words for it
    if url.get_backend_name() != "sqlite":
        return settings
    whole = url.set(database=str(folder / str(url.database))).render_as_string()
    return structs.replace(settings, database=structs.replace(settings.database, url=Secret(whole)))


def with_state(config: Path | None, work: Callable[[State], Awaitable[T]]) -> T:
    """Runs `work` on an opened state, turning what the domains refuse into an error that says what to do."""
    settings = read_settings(config)

    async def run() -> T:
        async with opened_state(settings) as state:
            return await work(state)

    try:
        return asyncio.run(run())
    except DependencyUnavailable as error:
        fail(error.message, then="`opsapi config check` says what cannot be reached")
    except OpsError as error:
        fail(f"{error.message} ({error.code})")


def operator(action: str) -> System:
    """The person at the terminal, as the audit trail names them."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = None
    return System(origin="cli", action=action, user=user)
