"""The command line: `opsapi`."""

import sys


def main() -> None:
    """The commands are imported here, so that Ctrl-C ends even a start without a traceback."""
    try:
        from opsapi.cli.app import app

        app()
    except KeyboardInterrupt:
        sys.exit(130)


__all__ = ["main"]
