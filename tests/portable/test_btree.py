"""Pages without what is in no use are the same database, and what was deleted is gone from them."""

from __future__ import annotations

import random
from pathlib import Path

import apsw
import pytest

from retroact.engine.sqlite.portable import btree

SECRET = "the secret of number "


def pages_of(path: Path, size: int) -> dict[int, bytes]:
    content = path.read_bytes()
    return {at // size + 1: content[at : at + size] for at in range(0, len(content), size)}


def fill(database: apsw.Connection, chance: random.Random) -> None:
    """Rows of all lengths come, change and go; what goes is not overwritten."""
    database.pragma("synchronous", "off")
    database.execute("begin")
    database.execute("create table t (id integer primary key, a text, b blob, n integer)")
    database.execute("create index by_a on t (a, n)")
    database.execute("create table w (k text primary key, v text) without rowid")
    database.execute("create table gone (x text)")
    for number in range(400):
        long = SECRET + str(number) + "." * chance.choice((0, 5, 100, 3000, 20_000 if number % 20 == 0 else 7))
        database.execute("insert into t values (?, ?, ?, ?)", (number * 7919 % 1009, long, long[::-1].encode(), number))
        database.execute("insert into w values (?, ?)", (f"{chance.random()}{long[:200]}", long))
        database.execute("insert into gone values (?)", (long,))
    database.execute("commit")
    database.execute("delete from t where n % 3 = 0")
    database.execute("update t set a = 'short' || n where n % 5 = 1")
    database.execute("delete from w where length(v) % 2 = 0")
    database.execute("drop table gone")


def dump(path: Path) -> list[object]:
    database = apsw.Connection(str(path))
    try:
        assert database.pragma("integrity_check") == "ok"
        tables = ("select * from t order by id", "select a, n from t indexed by by_a order by a, n", "select * from w order by k")
        return [database.execute(question).fetchall() for question in tables]
    finally:
        database.close()


FORMS = [(512, "none", "UTF-8"), (512, "full", "UTF-16le"), (4096, "full", "UTF-8"), (4096, "none", "UTF-16le"), (65536, "none", "UTF-8")]


@pytest.mark.parametrize(("page_size", "auto_vacuum", "encoding"), FORMS)
def test_scrubbed_pages_are_the_same_database(tmp_path: Path, page_size: int, auto_vacuum: str, encoding: str) -> None:
    path, clean = tmp_path / "t.db", tmp_path / "clean.db"
    database = apsw.Connection(str(path))
    database.execute(f"pragma page_size = {page_size}; pragma auto_vacuum = {auto_vacuum}; pragma encoding = '{encoding}'")
    database.pragma("secure_delete", False)
    fill(database, random.Random(page_size))
    roots = [root for (root,) in database.execute("select rootpage from sqlite_schema where rootpage > 0")]
    kept = {text for (text,) in database.execute("select a from t union all select v from w")}
    kept |= {reverse.decode()[::-1] for (reverse,) in database.execute("select b from t")}
    database.close()
    before = dump(path)
    scrubbed = btree.scrubbed(pages_of(path, page_size), [1, *roots])
    clean.write_bytes(b"".join(scrubbed[page] for page in sorted(scrubbed)))
    assert dump(clean) == before
    content, scrubbed_content = path.read_bytes(), clean.read_bytes()
    gone = [f"{SECRET}{n}." for n in range(400) if not any(f"{SECRET}{n}." in text or text == f"{SECRET}{n}" for text in kept)]
    coded = [text.encode("utf-8" if encoding == "UTF-8" else "utf-16-le") for text in gone]
    assert any(text in content for text in coded), "the test sees what it looks for"
    assert not [text for text in coded if text in scrubbed_content]


def test_what_is_there_of_some_pages_is_enough(tmp_path: Path) -> None:
    """Pages that are not at hand are not missed; what cannot be reached from those that are is zeroed."""
    path = tmp_path / "t.db"
    database = apsw.Connection(str(path))
    fill(database, random.Random(1))
    roots = [root for (root,) in database.execute("select rootpage from sqlite_schema where rootpage > 0")]
    database.close()
    pages = pages_of(path, 4096)
    some = {page: image for page, image in pages.items() if page in (1, *roots) or page % 3 == 0}
    whole, part = btree.scrubbed(pages, [1, *roots]), btree.scrubbed(some, [1, *roots])
    assert part.keys() == some.keys()
    for page, image in part.items():
        assert image in (whole[page], bytes(4096))
