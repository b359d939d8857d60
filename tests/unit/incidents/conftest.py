"""Stages on SQLite."""

from support.database import sqlite_template
from support.remediation import emergency

__all__ = ["emergency", "sqlite_template"]
