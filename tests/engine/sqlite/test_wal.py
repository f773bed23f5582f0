"""The write-ahead log as bytes: only complete and valid commits are given out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from tests.engine.sqlite.pagelog_kit import connect

from retroact.engine.sqlite import wal


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[apsw.Connection]:
    connection = connect(tmp_path / "shop.db")
    connection.execute("create table t (a)")
    yield connection
    connection.close()


@pytest.fixture
def fd(writer: apsw.Connection, tmp_path: Path) -> Iterator[int]:
    for size in (10, 9000, 20):
        writer.execute("insert into t values (zeroblob(?))", (size,))
    descriptor = os.open(tmp_path / "shop.db-wal", os.O_RDWR)
    yield descriptor
    os.close(descriptor)


def read_all(fd: int, start: int = 0, end: int | None = None) -> list[wal.WalCommit]:
    header = wal.read_header(fd)
    assert header is not None
    return list(wal.read_commits(fd, header, start, end))


def test_every_commit_is_one_transaction(fd: int) -> None:
    commits = read_all(fd)
    assert len(commits) == 4
    assert [c.first_frame for c in commits] == [0, *(c.end_frame for c in commits[:-1])]
    assert len(commits[2].frames) > 2
    assert commits[-1].database_pages == 4


def test_reading_from_the_middle_and_to_an_end(fd: int) -> None:
    commits = read_all(fd)
    assert read_all(fd, commits[1].first_frame) == commits[1:]
    assert read_all(fd, commits[1].first_frame, commits[2].end_frame) == commits[1:3]
    assert read_all(fd, commits[1].first_frame, commits[2].end_frame - 1) == commits[1:2]
    assert read_all(fd, commits[-1].end_frame) == []
    assert read_all(fd, commits[-1].end_frame + 5) == []


def test_recovery_stops_at_the_first_damaged_frame(fd: int) -> None:
    commits = read_all(fd)
    place = 32 + commits[2].first_frame * (24 + 4096) + 24 + 100
    os.pwrite(fd, b"!", place)
    assert read_all(fd) == commits[:2]


def test_a_half_written_commit_is_not_seen(fd: int) -> None:
    commits = read_all(fd)
    os.ftruncate(fd, 32 + (commits[2].end_frame - 1) * (24 + 4096) + 50)
    assert read_all(fd) == commits[:2]


def test_an_older_generation_is_not_seen(writer: apsw.Connection, fd: int) -> None:
    before = wal.read_header(fd)
    writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    writer.execute("insert into t values (1)")
    after = wal.read_header(fd)
    assert before is not None
    assert after is not None
    assert after.salts[0] == before.salts[0] + 1
    (commit,) = read_all(fd)
    assert commit.salts == after.salts
    assert not wal.has_frame(fd, after, commit.end_frame)
    assert wal.has_frame(fd, after, commit.end_frame - 1)


@pytest.mark.parametrize("place", [0, 4, 16, 24])
def test_a_damaged_header_is_no_header(fd: int, place: int) -> None:
    os.pwrite(fd, bytes([os.pread(fd, 1, place)[0] ^ 0xFF]), place)
    assert wal.read_header(fd) is None


def test_an_empty_file_has_no_header(fd: int) -> None:
    os.ftruncate(fd, 0)
    assert wal.read_header(fd) is None
