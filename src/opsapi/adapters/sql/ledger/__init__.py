"""The ledger of operations on SQLite and PostgreSQL: exclusivity is a primary key, ownership a fenced lease, and every
change stands in one transaction with its audit entry and its event."""

from opsapi.adapters.sql.ledger.beginning import Beginning
from opsapi.adapters.sql.ledger.control import Control
from opsapi.adapters.sql.ledger.decisions import Decisions
from opsapi.adapters.sql.ledger.reading import Reading
from opsapi.adapters.sql.ledger.steps import Steps


class SqlLedger(Beginning, Decisions, Control, Steps, Reading):
    """Implements operations' Ledger. Leases run on PostgreSQL's own clock, so that replicas need not agree on the
    time; on SQLite, where all processes share a machine, on the given clock."""


__all__ = ["SqlLedger"]
