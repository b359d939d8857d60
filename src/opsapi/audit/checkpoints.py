"""Where checkpoints go, out of the database's reach: a file of JSON lines, or the log."""

import asyncio
import logging
import os
from datetime import datetime
from pathlib import Path

import msgspec

from opsapi.audit.chain import Checkpoint

_log = logging.getLogger("opsapi.audit.checkpoints")


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    seq: int
    mac: str
    key_id: str
    at: datetime
    signature: str


class ReadCheckpoints(msgspec.Struct, frozen=True):
    """`unreadable`: numbers of the lines that hold no checkpoint. A crash can leave one torn line; more are a sign."""

    marks: list[Checkpoint]
    unreadable: list[int]


def write_line(mark: Checkpoint) -> bytes:
    line = _Line(seq=mark.seq, mac=mark.mac.hex(), key_id=mark.key_id, at=mark.at, signature=mark.signature.hex())
    return msgspec.json.encode(line)


def read_line(raw: bytes) -> Checkpoint:
    """Raises ValueError (msgspec's errors are such)."""
    line = msgspec.json.decode(raw, type=_Line)
    return Checkpoint(
        seq=line.seq,
        mac=bytes.fromhex(line.mac),
        key_id=line.key_id,
        at=line.at,
        signature=bytes.fromhex(line.signature),
    )


class FileCheckpoints:
    """Appends, and syncs before it returns. The file is best on another machine's disk, append-only."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def export(self, mark: Checkpoint) -> None:
        await asyncio.to_thread(self._append, write_line(mark) + b"\n")

    def _append(self, line: bytes) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            # One write call: lines of several replicas that share the file do not mix.
            os.write(descriptor, b"\n" + line if torn else line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class LogCheckpoints:
    """For installations whose logs leave the machine anyway."""

    async def export(self, mark: Checkpoint) -> None:
        _log.info("audit checkpoint %s", write_line(mark).decode())


def read_file(path: Path) -> ReadCheckpoints:
    """Raises OSError."""
    marks, unreadable = [], []
    for number, raw in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            marks.append(read_line(raw))
        except ValueError:
            unreadable.append(number)
    return ReadCheckpoints(marks, unreadable)
