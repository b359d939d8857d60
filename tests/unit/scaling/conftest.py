"""Scaling on fakes, with the real ledger on SQLite."""

from support.database import sqlite_template
from support.scaling import stage

__all__ = ["sqlite_template", "stage"]
