"""The page log: taking over, crashes, gaps, damage."""

from __future__ import annotations

import itertools
import shutil
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.sqlite.pagelog_kit import Platform, check_past, connect, life

from retroact.engine.sqlite.pagefile import Chain, ChunkRow, Draft, encode_patch, unpack
from retroact.engine.sqlite.pagelog import LoggedCommit, PageLog, PageLogWriter
from retroact.errors import BeyondHistory, DamagedPage, NewerDatabase, NotADatabase


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return Platform(tmp_path / "shop.db")


def live(platform: Platform, steps: int, seed: int = 1) -> None:
    for transaction in life(seed, steps):
        platform.commit(*transaction)


def edit(path: Path, sql: str) -> None:
    """Change the side file behind everybody's back."""
    connection = apsw.Connection(f"{path}-pages")
    connection.execute(sql).fetchall()
    connection.close()


def check_chunk(old: bytes | None, versions: list[bytes]) -> None:
    """A chunk of versions, at commits 7, 9, 11, ..., gives each of them back, and says which commit changes the page next."""
    draft = Draft(3, 7, old, versions[0])
    for step, (before, image) in enumerate(itertools.pairwise(versions), start=1):
        draft.add(7 + 2 * step, before, image)
    row = ChunkRow(*draft.seal(Chain(old or b"")))
    last = 7 + 2 * (len(versions) - 1)
    for step, image in enumerate(versions):
        for until in (7 + 2 * step, 8 + 2 * step):
            found, numbers, following = unpack(row, old or b"", len(versions[0]), until)
            assert found == image
            assert numbers == list(range(7, 8 + 2 * step, 2))
            assert following == (0 if numbers[-1] == last else numbers[-1] + 2)


@given(st.data(), st.sampled_from([512, 4096, 65536]), st.booleans())
def test_a_chunk_gives_back_each_of_its_versions(data: st.DataObject, size: int, whole: bool) -> None:
    pieces = st.lists(st.tuples(st.integers(0, size - 1), st.binary(max_size=40)), max_size=12)

    def page() -> bytes:
        image = bytearray(size)
        for offset, piece in data.draw(pieces):
            image[offset : offset + len(piece)] = piece
        return bytes(image[:size])

    check_chunk(None if whole else page(), [page() for _ in range(data.draw(st.integers(1, 5)))])


def test_the_widest_patches() -> None:
    for size in (512, 4096, 65536):
        old, new = bytes(size), b"\xff" * size
        check_chunk(old, [new, old, old, new])
        assert not any(encode_patch(old, old))


@pytest.mark.parametrize("batch", [1, 40])
def test_a_long_life(tmp_path: Path, batch: int) -> None:
    platform = Platform(tmp_path / "shop.db", batch=batch)
    live(platform, 150, seed=batch)
    platform.flush()
    check_past(platform.path, platform.dumps, platform.versions)
    assert len(platform.generations) > 3
    platform.close()


def test_logging_begins_in_the_middle_of_a_life(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with closing(connect(path)) as earlier:
        for transaction in life(3, 60):
            for statement in transaction:
                sql, arguments = (statement, ()) if isinstance(statement, str) else statement
                if sql != "vacuum":
                    earlier.execute(sql, arguments).fetchall()
    platform = Platform(path)
    assert platform.number == 1
    for transaction in list(life(4, 60))[1:]:
        platform.commit(*transaction)
    platform.commit("delete from heap")
    platform.commit("vacuum")
    platform.commit("insert into heap values (1, zeroblob(100000))")
    platform.flush()
    check_past(path, platform.dumps, platform.versions)
    platform.close()


def test_a_small_cache_gives_the_same(tmp_path: Path) -> None:
    platform = Platform(tmp_path / "shop.db")
    live(platform, 20)
    platform.close()
    platform.start(cached_pages=2)
    for transaction in list(life(5, 60))[1:]:
        platform.commit(*transaction)
    platform.close()
    check_past(platform.path, platform.dumps, platform.versions)


def test_after_a_crash_the_write_ahead_log_is_taken_over(platform: Platform) -> None:
    platform.batch = 10_000
    for round_number in range(6):
        waiting = platform.number
        for transaction in list(life(round_number, 12))[1 if round_number else 0 :]:
            platform.commit(*transaction)
            if platform.number == waiting + 5:
                platform.flush(checkpoint=round_number % 2 == 0)
        logged = platform.log.last_commit.number
        number = platform.number
        platform.crash()
        assert platform.start() == number - logged > 0
        assert platform.number == number
    check_past(platform.path, platform.dumps, platform.versions)
    platform.close()


def test_a_crash_before_versions_are_known_is_made_good(platform: Platform) -> None:
    live(platform, 5)
    platform.flush(checkpoint=False)
    last = platform.log.last_commit
    platform.batch = 10_000
    platform.commit("insert into audit values (1, 1)")
    platform.crash()
    writer = PageLogWriter(platform.path)

    def fail(number: int) -> int:
        raise KeyboardInterrupt(number)

    with pytest.raises(KeyboardInterrupt):
        writer.catch_up(platform.wal_path, fail)
    writer.close()
    log = PageLog(platform.path)
    assert log.last_commit == last
    assert log.commit(last.number + 1).number == last.number + 1
    platform.start()
    assert log.last_commit.version == platform.versions[last.number + 1]
    check_past(platform.path, platform.dumps, platform.versions)


def test_closing_and_opening_again_loses_nothing(platform: Platform) -> None:
    for round_number in range(4):
        for transaction in list(life(round_number, 12))[1 if round_number else 0 :]:
            platform.commit(*transaction)
        platform.close()
        assert platform.start() == 0
    platform.crash()
    assert platform.start() == 0
    platform.close()
    # Somebody looks at it, and SQLite removes the empty write-ahead log.
    looker = apsw.Connection(str(platform.path))
    assert looker.execute("select count(*) from account").get
    looker.close()
    assert platform.start() == 0
    check_past(platform.path, platform.dumps, platform.versions)


def test_a_change_by_another_program_after_closing_is_taken_over_while_it_can_be_seen(platform: Platform) -> None:
    live(platform, 10)
    platform.close()
    with closing(connect(platform.path)) as other:
        other.execute("insert into audit values ('another', 'program')")
    platform.version += 2
    assert platform.start() == 1
    platform.commit("insert into audit values (1, 2)")
    platform.close()
    check_past(platform.path, platform.dumps, platform.versions)


def gap_checked(platform: Platform) -> None:
    """After a gap: a new base, nothing before it, everything after it."""
    before = platform.number
    assert platform.start() == 0
    assert platform.number == before + 1
    live_again = list(life(9, 20))[1:]
    for transaction in live_again:
        platform.commit(*transaction)
    platform.close()
    dumps = {number: found for number, found in platform.dumps.items() if number > before}
    check_past(platform.path, dumps, platform.versions)
    log = PageLog(platform.path)
    assert log.horizon.number == before + 1
    with pytest.raises(BeyondHistory, match=r"another program|cut short"):
        log.commit(before)
    with pytest.raises(BeyondHistory):
        log.commit_of(0)
    with pytest.raises(BeyondHistory):
        log.page(2, before)


def test_a_change_and_checkpoint_by_another_program_is_a_gap(platform: Platform) -> None:
    live(platform, 20)
    platform.close()
    other = apsw.Connection(str(platform.path))
    other.execute("insert into audit values ('another', 'program')")
    other.close()
    platform.version += 2
    gap_checked(platform)


def test_a_write_ahead_log_gone_after_a_crash_is_a_gap(platform: Platform) -> None:
    live(platform, 20)
    platform.crash()
    other = apsw.Connection(str(platform.path))
    other.execute("select count(*) from audit").fetchall()
    other.close()
    assert not platform.wal_path.exists()
    platform.version += 2
    with_lost = PageLog(platform.path).last_commit.number
    platform.number = with_lost
    for number in [n for n in platform.dumps if n > with_lost]:
        del platform.dumps[number], platform.versions[number]
    gap_checked(platform)


def test_a_generation_that_is_not_the_next_is_a_gap(platform: Platform) -> None:
    live(platform, 20)
    platform.flush()
    platform.crash()
    other = connect(platform.path)
    for _ in range(3):
        other.execute("insert into audit values ('another', 'program')")
        other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    other.close()
    platform.version += 2
    gap_checked(platform)


@pytest.mark.parametrize(
    "damage",
    [
        "update pagelog_chunk set data = cast(substr(data, 1, 7) || x'ff' || substr(data, 9) as blob)",
        "update pagelog_chunk set last = last + 1",
        "update pagelog_chunk set kind = 1 - kind",
        "update pagelog_chunk set crc = crc + 1",
        "update pagelog_chunk set place = place + 1",
        "update pagelog_chunk set place = place + 4294967296000",
        "update pagelog_chunk set data = 'text'",
        "delete from pagelog_chunk",
    ],
)
def test_a_damaged_chunk_is_found(platform: Platform, damage: str) -> None:
    live(platform, 60)
    platform.close()
    log = PageLog(platform.path)
    chain = "place >> 32 = 2 and place & 4294967295"
    newest = f"select max(place) from pagelog_chunk where {chain} < (select max(place) & 4294967295 from pagelog_chunk where {chain})"
    edit(platform.path, f"{damage} where place = ({newest})")
    problems = list(log.verify())
    assert problems
    assert all(isinstance(problem, DamagedPage) for problem in problems)
    assert "page" in str(problems[0])
    damaged = 0
    for number in range(1, platform.number + 1):
        try:
            log.page(2, number)
        except DamagedPage:
            damaged += 1
    assert damaged


@pytest.mark.parametrize("column", ["version", "pages", "persisted_us", "changed", "crc"])
def test_a_damaged_commit_row_is_found(platform: Platform, column: str) -> None:
    live(platform, 20)
    platform.close()
    edit(platform.path, f"update pagelog_commit set {column} = {column} + 1 where n = 9")
    log = PageLog(platform.path)
    with pytest.raises(DamagedPage, match="page count as of commit 9 was changed"):
        log.commit(9)
    with pytest.raises(DamagedPage):
        log.commit_of(platform.versions[9])
    assert [problem.details["commit"] for problem in log.verify()] == [9]
    assert log.commit(8).number == 8


def test_a_missing_commit_row_is_found(platform: Platform) -> None:
    live(platform, 20)
    platform.close()
    edit(platform.path, "delete from pagelog_commit where n = 9")
    with pytest.raises(DamagedPage, match="is missing"):
        PageLog(platform.path).commit(9)


def test_bytes_overwritten_in_the_file_are_found(platform: Platform) -> None:
    live(platform, 60)
    platform.close()
    edit(platform.path, "pragma wal_checkpoint(truncate)")
    side = Path(f"{platform.path}-pages")
    original = side.read_bytes()
    log = PageLog(platform.path)
    image = next(data for (data,) in apsw.Connection(str(side)).execute("select data from pagelog_chunk where length(data) > 300"))
    found = bytes(image)[:200]
    copy = platform.path.parent / "copy.db"
    shutil.copy(platform.path, copy)
    Path(f"{copy}-pages").write_bytes(original.replace(found, found[:50] + bytes([found[50] ^ 1]) + found[51:]))
    assert not list(log.verify())
    assert list(PageLog(copy).verify())


def test_what_does_not_continue_is_refused(platform: Platform) -> None:
    platform.batch = 10_000
    platform.commit("create table t (a)")
    platform.commit("insert into t values (1)")
    commits = platform.read_waiting()
    with pytest.raises(ValueError, match="begins at frame"):
        platform.log.append(commits[1:])
    with pytest.raises(ValueError, match="comes after"):
        platform.log.append([commits[0], LoggedCommit(commits[1].wal, 0, 0)])
    platform.log.append(commits)
    assert platform.log.last_commit.number == platform.number


def test_a_newer_log_and_a_file_that_is_no_database_are_refused(platform: Platform, tmp_path: Path) -> None:
    platform.close()
    edit(platform.path, "update pagelog_meta set format = 99")
    with pytest.raises(NewerDatabase):
        PageLog(platform.path)
    with pytest.raises(NewerDatabase):
        PageLogWriter(platform.path)
    (tmp_path / "no.db").write_text("nothing" * 100)
    with pytest.raises(NotADatabase):
        PageLogWriter(tmp_path / "no.db")
