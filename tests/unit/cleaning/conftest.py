"""Cleaning on fakes, with the real ledger on SQLite."""

from support.cleaning import attic
from support.database import sqlite_template

__all__ = ["attic", "sqlite_template"]
