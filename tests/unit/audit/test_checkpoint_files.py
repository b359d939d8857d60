"""Checkpoints out of the database."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsapi.audit.chain import ChainHead, ChainKeys, Checkpoint, checkpoint, is_genuine
from opsapi.audit.checkpoints import FileCheckpoints, LogCheckpoints, read_file, read_line
from support.audit import KEY

KEYS = ChainKeys(KEY)


def marks_of(count: int) -> list[Checkpoint]:
    start = datetime(2026, 1, 2, 12, 0, 0, 7, tzinfo=UTC)
    return [checkpoint(KEYS, ChainHead(n, bytes([n]) * 32), start + timedelta(minutes=n)) for n in range(1, count + 1)]


async def test_a_file_gives_back_what_was_exported(tmp_path: Path) -> None:
    file = FileCheckpoints(tmp_path / "checkpoints.jsonl")
    for mark in marks_of(3):
        await file.export(mark)
    read = read_file(file.path)
    assert read.marks == marks_of(3)
    assert read.unreadable == []
    assert all(is_genuine(KEYS, mark) for mark in read.marks)
    assert file.path.stat().st_mode & 0o077 == 0


async def test_a_line_torn_by_a_crash_spoils_neither_its_neighbours_nor_the_next(tmp_path: Path) -> None:
    file = FileCheckpoints(tmp_path / "checkpoints.jsonl")
    one, two = marks_of(2)
    await file.export(one)
    with file.path.open("ab") as raw:
        raw.write(b'{"seq":2,"ma')
    await file.export(two)
    read = read_file(file.path)
    assert read.marks == [one, two]
    assert read.unreadable == [2]


async def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await FileCheckpoints(tmp_path / "no" / "file").export(marks_of(1)[0])


async def test_the_log_carries_the_whole_checkpoint(caplog: pytest.LogCaptureFixture) -> None:
    [mark] = marks_of(1)
    with caplog.at_level(logging.INFO):
        await LogCheckpoints().export(mark)
    line = caplog.records[-1].getMessage()
    assert read_line(line[line.index("{") :].encode()) == mark
