"""Healing on fakes, with the real ledger on SQLite."""

from support.database import sqlite_template
from support.healing import ward

__all__ = ["sqlite_template", "ward"]
