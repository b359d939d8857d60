"""Scanning on fakes, with the real ledger and store on SQLite."""

from support.database import sqlite_template
from support.security import scan_stage

__all__ = ["scan_stage", "sqlite_template"]
