"""The command line: `opsapi`."""

from opsapi.cli.app import main

__all__ = ["main"]
