"""Contract suites run on the real engines."""

from support.database import database, database_url, empty_database_url, postgres, sqlite_template

__all__ = ["database", "database_url", "empty_database_url", "postgres", "sqlite_template"]
