"""Past states as connections: what they show, what may be done to them, and that the writer cannot disturb them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from tests.engine.sqlite.pagelog_kit import Platform, connect, dump, life

from retroact.engine.sqlite.pagelog import PageLog
from retroact.engine.sqlite.timetravel import TimeTravel
from retroact.errors import BeyondHistory, DamagedPage


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    platform = Platform(tmp_path / "shop.db")
    for transaction in life(7, 80):
        platform.commit(*transaction)
    platform.flush()
    return platform


@pytest.fixture
def travel(platform: Platform) -> Iterator[TimeTravel]:
    log = PageLog(platform.path)
    travel = TimeTravel(platform.path, log)
    yield travel
    travel.close()
    log.close()


def count(connection: apsw.Connection, table: str = "audit") -> int:
    return connection.execute(f"select count(*) from {table}").fetchall()[0][0]


def test_every_branch_can_be_written_and_is_sound(platform: Platform, travel: TimeTravel) -> None:
    on_disk = sorted(path.name for path in platform.path.parent.iterdir())
    for number in range(2, platform.number + 1, 9):
        branch = travel.open(number)
        branch.execute("insert into audit values ('branch', ?)", (number,))
        branch.execute("begin; delete from heap; create table fresh as select * from account; rollback").fetchall()
        assert dump(branch)["heap"] == platform.dumps[number]["heap"]
        branch.execute("begin; delete from heap; create table fresh as select * from account; commit").fetchall()
        branch.execute("insert into heap select k, zeroblob(5000) from flat order by v")
        branch.execute("insert into words values ('a branch')")
        branch.execute("vacuum")
        branch.execute("insert into heap values (1, zeroblob(100000))")
        assert branch.pragma("integrity_check") == "ok"
        assert count(branch) == len(platform.dumps[number]["audit"]) + 1
        other = travel.open(number)
        assert dump(other) == platform.dumps[number]
        branch.close()
        other.close()
    assert sorted(path.name for path in platform.path.parent.iterdir()) == on_disk
    assert dump(platform.reader) == platform.dumps[platform.number]


def test_a_branch_that_shrinks_and_grows_does_not_see_old_pages(platform: Platform, travel: TimeTravel) -> None:
    branch = travel.open(platform.number)
    tables = [name for kind, name, *_ in dump(branch)[""] if kind == "table" and str(name).startswith("extra_")]
    for table in tables:
        branch.execute(f"drop table {table}")
    branch.execute("delete from heap")
    branch.execute("vacuum")
    for size in range(0, 60_000, 7000):
        branch.execute("insert into heap values (?, randomblob(?))", (size, size))
    assert branch.pragma("integrity_check") == "ok"


def test_forks_go_their_own_ways(platform: Platform, travel: TimeTravel) -> None:
    branch = travel.open(20)
    before = count(branch)
    branch.execute("insert into audit values (1, 1)")
    twin = travel.fork(branch)
    branch.execute("insert into audit values (2, 2)")
    twin.execute("delete from audit")
    third = travel.fork(twin)
    assert [count(branch), count(twin), count(third)] == [before + 2, 0, 0]
    assert third.pragma("integrity_check") == "ok"
    branch.execute("begin immediate")
    with pytest.raises(ValueError, match="in the middle of a transaction"):
        travel.fork(branch)
    with pytest.raises(ValueError, match="not a branch"):
        travel.fork(platform.reader)


def test_open_branches_do_not_notice_the_writer(tmp_path: Path) -> None:
    """Pages nobody touched yet are changed, logged and checkpointed while a branch is open that has not read them."""
    path = tmp_path / "shop.db"
    with closing(connect(path)) as earlier:
        earlier.execute("create table account (id integer primary key, balance)")
        earlier.execute("with n(i) as (values(1) union all select i + 1 from n where i < 5000) insert into account select i, 100 from n")
        earlier.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    platform = Platform(path, remember=False)
    log = PageLog(path)
    travel = TimeTravel(path, log)
    branch = travel.open(1)
    assert branch.execute("select balance from account where id = 1").get == 100
    assert log.page(5, 1) is None
    platform.commit("update account set balance = 1", "delete from account where id % 3 = 0")
    platform.commit("delete from account")
    platform.flush()
    platform.commit("vacuum")
    platform.flush()
    assert branch.execute("select sum(balance) from account").get == 500_000
    assert travel.open(2).execute("select count(*), sum(balance) from account").get == (3334, 3334)
    assert travel.open(3).execute("select count(*) from account").get == 0
    travel.close()


def test_a_page_logged_between_the_two_questions(platform: Platform, travel: TimeTravel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer logs and checkpoints just after the main file was read, or just before: either way the log has the word."""
    layer = travel._layer
    branch = travel.open(platform.number)
    expected = platform.dumps[platform.number]
    real = layer.main_image

    def disturbed(page: int) -> bytes:
        before = real(page)
        platform.commit("update account set balance = balance + 1", "insert into heap values (1, zeroblob(9000))")
        platform.commit("delete from flat", "delete from words", "delete from odd")
        platform.flush()
        return before if page % 2 else real(page)

    monkeypatch.setattr(layer, "main_image", disturbed)
    platform.remember = False
    assert dump(branch) == expected


def test_a_reader_keeps_up_while_the_writer_goes_on(platform: Platform, travel: TimeTravel) -> None:
    for transaction in list(life(8, 30))[1:]:
        platform.commit(*transaction)
        platform.flush()
        branch = travel.open(platform.number)
        assert dump(branch) == platform.dumps[platform.number]
        branch.close()


def test_many_threads(platform: Platform, travel: TimeTravel) -> None:
    wrong: list[int] = []

    def visit(numbers: list[int]) -> None:
        for number in numbers:
            branch = travel.open(number)
            branch.execute("create table mine (a)")
            branch.execute("drop table mine")
            if dump(branch)["account"] != platform.dumps[number]["account"]:
                wrong.append(number)
            branch.close()

    numbers = list(platform.dumps)[1:]
    threads = [threading.Thread(target=visit, args=(numbers[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_clock_is_the_one_given(platform: Platform, travel: TimeTravel) -> None:
    branch = travel.open(20)
    question = "select strftime('%Y-%m-%d %H:%M:%f', 'now'), current_timestamp"
    travel.clock = lambda: 1_000_000_000_123_000
    assert branch.execute(question).get == ("2001-09-09 01:46:40.123", "2001-09-09 01:46:40")
    travel.clock = lambda: 0
    assert branch.execute(question).get == ("1970-01-01 00:00:00.000", "1970-01-01 00:00:00")
    travel.clock = None
    assert branch.execute("select current_timestamp > '2020'").get == 1


def test_a_damaged_page_is_reported_by_the_statement_that_needs_it(platform: Platform, travel: TimeTravel) -> None:
    side = apsw.Connection(f"{platform.path}-pages")
    side.execute("update pagelog_chunk set data = zeroblob(length(data)) where place >> 32 = 1")
    with pytest.raises(DamagedPage, match="page 1 as of commit"):
        travel.open(30).execute("select * from account").fetchall()
    side.close()


def test_a_gap_while_a_branch_is_open(platform: Platform, travel: TimeTravel) -> None:
    number = platform.number
    branch = travel.open(number)
    platform.close()
    other = apsw.Connection(str(platform.path))
    other.execute("update account set balance = -1")
    other.close()
    platform.version += 2
    platform.start()
    with pytest.raises(BeyondHistory):
        dump(branch)
    with pytest.raises(BeyondHistory, match=f"of commit {number}"):
        travel.open(number)
    with pytest.raises(ValueError, match="not in the page log yet"):
        travel.open(platform.number + 1)


def test_closing_closes_the_branches(platform: Platform) -> None:
    log = PageLog(platform.path)
    travel = TimeTravel(platform.path, log)
    name = travel._layer.layer_name
    branch = travel.open(5)
    assert name in apsw.vfs_names()
    travel.close()
    travel.close()
    assert name not in apsw.vfs_names()
    with pytest.raises(apsw.ConnectionClosedError):
        branch.execute("select 1")
