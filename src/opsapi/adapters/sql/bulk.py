"""Many rows at once, past SQLAlchemy's work for each row, which costs more than SQLite's own."""

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from opsapi.adapters.sql.engine import Database

Bind = Callable[[Any], Any]


class DriverStatement:
    """An INSERT or UPDATE that sets `columns`, then binds `others` by name; compiled once for the database's engine.

    Values are bound as SQLAlchemy would, but only where a column's type has something to do.
    """

    def __init__(
        self,
        database: Database,
        statement: "sa.Insert | sa.Update",
        columns: Sequence[sa.Column[Any]],
        others: Sequence[str] = (),
    ) -> None:
        dialect = database.engine.dialect
        names = [*(column.name for column in columns), *others]
        compiled = statement.compile(dialect=dialect, column_keys=[column.name for column in columns])
        self._text = str(compiled)
        order = getattr(compiled, "positiontup", None) or []
        if sorted(order) != sorted(names):
            raise ValueError(f"the statement binds {order}, not {names}")
        self._order = [names.index(name) for name in order]
        self._in_order = self._order == list(range(len(names)))
        binds = (
            (place, column.type.dialect_impl(dialect).bind_processor(dialect)) for place, column in enumerate(columns)
        )
        self._binds: list[tuple[int, Bind]] = [(place, bind) for place, bind in binds if bind is not None]

    async def execute(self, connection: AsyncConnection, rows: Sequence[list[Any]]) -> None:
        """Each row in the order of columns and others; the lists are changed. Raises what `connection.execute` does."""
        for place, bind in self._binds:
            for row in rows:
                row[place] = bind(row[place])
        if self._in_order:
            bound = [tuple(row) for row in rows]
        else:
            bound = [tuple(row[place] for place in self._order) for row in rows]
        await connection.exec_driver_sql(self._text, bound)
