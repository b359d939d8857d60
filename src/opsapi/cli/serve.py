"""`opsapi serve`: the service in the foreground."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from opsapi.adapters.sql.migrating import SchemaIsNewer
from opsapi.cli.context import read_settings
from opsapi.cli.output import err, fail
from opsapi.http.server import CannotListen, UnsafeListener
from opsapi.http.tls import TlsUnusable
from opsapi.kit.errors import DependencyUnavailable
from opsapi.main import serve_until_stopped
from opsapi.settings.source import InvalidConfiguration


def serve(
    config: Annotated[Path, typer.Option("--config", "-c", envvar="OPSAPI_CONFIG", help="The configuration file.")],
    ready_file: Annotated[
        Path | None, typer.Option(help="Written as JSON ({url, pid}) once the service answers.", hidden=True)
    ] = None,
) -> None:
    """Run the service until SIGTERM or Ctrl-C. Migrates its database at start; logs JSON lines to stderr."""
    settings = read_settings(config)

    async def announce(url: str) -> None:
        if ready_file is not None:
            part = ready_file.with_name(f".{ready_file.name}.part")
            part.write_text(json.dumps({"url": url, "pid": os.getpid()}))
            part.replace(ready_file)
        err.print(f"opsapi answers at {url}", markup=False)

    try:
        serve_until_stopped(settings, announce)
    except InvalidConfiguration as invalid:
        fail("\n  ".join(invalid.problems), then="docs/configuration.md lists every key", code=2)
    except (UnsafeListener, CannotListen, TlsUnusable) as error:
        fail(str(error), code=2)
    except SchemaIsNewer as error:
        fail(str(error), then="start the release that migrated it, or restore a backup of the database")
    except DependencyUnavailable as error:
        fail(error.message, then="`opsapi config check` says what cannot be reached")
