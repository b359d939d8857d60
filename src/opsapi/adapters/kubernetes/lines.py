"""Cuts a byte stream into lines."""

from collections.abc import Iterator


class LineTooLong(Exception):
    """No end of line within the limit."""


class LineSplitter:
    """Feeds on chunks, gives whole lines without their end; what is incomplete waits for the next chunk.

    Costs are linear in the bytes fed, however small the chunks and however long the lines.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._held = 0

    @property
    def pending(self) -> int:
        """Bytes of the line that has no end yet."""
        return self._held

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Raises LineTooLong. Empty lines are left out."""
        first, *rest = chunk.split(b"\n")
        if not rest:
            self._hold(first)
            return
        self._hold(first)
        line = b"".join(self._pieces) if len(self._pieces) != 1 else self._pieces[0]
        self._pieces, self._held = [], 0
        tail = rest.pop()
        for whole in (line, *rest):
            if whole.strip():
                yield whole
        self._hold(tail)

    def _hold(self, piece: bytes) -> None:
        if not piece:
            return
        self._held += len(piece)
        if self._held > self._limit:
            raise LineTooLong(f"a line of over {self._limit} bytes")
        self._pieces.append(piece)
