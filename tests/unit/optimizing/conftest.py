"""optimize_resources on fakes, with the real ledger on SQLite."""

from support.database import sqlite_template
from support.optimizing import optimize_stage

__all__ = ["optimize_stage", "sqlite_template"]
