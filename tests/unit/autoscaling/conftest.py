"""Autoscaling on fakes, with the real ledger on SQLite."""

from support.autoscaling import autoscale_stage
from support.database import sqlite_template

__all__ = ["autoscale_stage", "sqlite_template"]
