"""meta.k8s.io Tables: kubectl's columns for every kind."""

from opsapi.playground.api.tables.columns import Columns, columns_of, table

__all__ = ["Columns", "columns_of", "table"]
