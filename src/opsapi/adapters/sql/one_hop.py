"""SQLite with one trip to its thread a statement.

aiosqlite runs each call of a cursor (open, execute, fetch, close) as a job of its own on the connection's thread, and
the way there and back costs more than SQLite does. Here a statement is one job: its rows come back with it.
"""

import sqlite3
from collections import deque
from collections.abc import Iterable
from typing import Any

import aiosqlite


class OneHopCursor:
    """What SQLAlchemy's asyncio adapter asks of a cursor."""

    def __init__(self, connection: "OneHopConnection") -> None:
        self._connection = connection
        self._rows: deque[Any] = deque()
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    async def __aenter__(self) -> "OneHopCursor":
        return self

    async def execute(self, statement: str, parameters: Iterable[Any] | None = None) -> "OneHopCursor":
        await self._run(lambda cursor: cursor.execute(statement, tuple(parameters or ())))
        return self

    async def executemany(self, statement: str, parameters: Iterable[Iterable[Any]]) -> "OneHopCursor":
        await self._run(lambda cursor: cursor.executemany(statement, parameters))
        return self

    async def _run(self, work: Any) -> None:
        def in_thread() -> list[Any]:
            cursor: sqlite3.Cursor = self._connection.driver.cursor()
            try:
                work(cursor)
                rows = cursor.fetchall() if cursor.description is not None else []
                # The count of a statement that returns rows is only known once they are read.
                self.description, self.rowcount, self.lastrowid = (
                    cursor.description,
                    cursor.rowcount,
                    cursor.lastrowid,
                )
            finally:
                cursor.close()
            return rows

        self._rows = deque(await self._connection.in_thread(in_thread))

    async def fetchone(self) -> Any:
        return self._rows.popleft() if self._rows else None

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        wanted = min(self.arraysize if size is None else size, len(self._rows))
        return [self._rows.popleft() for _ in range(wanted)]

    async def fetchall(self) -> list[Any]:
        rows, self._rows = list(self._rows), deque()
        return rows

    async def close(self) -> None:
        self._rows.clear()


class OneHopConnection(aiosqlite.Connection):
    def cursor(self) -> OneHopCursor:  # type: ignore[override]  # aiosqlite's opens in its thread, to be awaited
        return OneHopCursor(self)

    @property
    def driver(self) -> sqlite3.Connection:
        held: sqlite3.Connection = self._conn
        return held

    async def in_thread(self, work: Any) -> Any:
        return await self._execute(work)  # type: ignore[no-untyped-call]


async def connect(database: str, **options: Any) -> OneHopConnection:
    """As `aiosqlite.connect`, for the dialect's `async_creator_fn`."""

    def open_in_thread() -> sqlite3.Connection:
        opened: sqlite3.Connection = sqlite3.connect(database, **options)
        return opened

    connection = OneHopConnection(open_in_thread, 64)
    connection._thread.daemon = True
    await connection
    return connection
