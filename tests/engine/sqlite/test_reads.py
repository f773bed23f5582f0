"""Which rows a statement reads: exactly, or known by its tables only, never wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from retroact import App, transaction
from retroact.engine.contract import Invocation, Reads, Watched
from retroact.engine.sqlite.history import History
from retroact.function.declare import Function
from retroact.trace.record import ALONE, RunId


@transaction
def create(conn: Any) -> None:
    for sql in (
        "create table item (id integer primary key, name text, price integer)",
        "create table sold (item integer, many integer)",
        "create table word (text text primary key, n integer) without rowid",
        'create table "odd name" ("from" integer)',
        "create view cheap as select * from item where price < 3",
        "insert into item values (1, 'apple', 2), (2, 'pear', 3), (3, 'fig', 9)",
        "insert into sold values (1, 5), (1, 6), (3, 1)",
        "insert into word values ('a', 1), ('b', 2)",
        'insert into "odd name" values (7)',
    ):
        conn.execute(sql)


@transaction
def ask(conn: Any, sql: str) -> None:
    conn.rows(sql)


class Looks:
    """A watcher that keeps what it is shown."""

    touched = False

    def __init__(self) -> None:
        self.seen: list[Watched] = []

    def asks(self) -> bool:
        return False

    def before(self, statement: Watched, /) -> None: ...

    def after(self, statement: Watched, /) -> None:
        self.seen.append(statement)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    path = tmp_path_factory.mktemp("reads") / "test.db"
    with App(path, [create]) as app:
        app.run(create)
    history = History(path)
    yield history
    history.close()


def reads(history: History, sql: str) -> Reads:
    looks = Looks()
    branch = history.at(1)
    try:
        function: Function[..., Any] = ask
        invocation = Invocation(run=RunId("r"), step=ALONE, function=function, arguments=function.schema.encode_arguments((sql,), {}))
        trial = branch.attempt(invocation, 0, "", watcher=looks)
        assert trial.error is None
        branch.undo()
    finally:
        branch.close()
    return looks.seen[0].reads


def rows(table: str, *keys: Any) -> set[tuple[str, Any]]:
    return {(table, (key,)) for key in keys}


@pytest.mark.parametrize(
    ("sql", "expected", "tables"),
    [
        ("select 1", set(), ()),
        ("select name from item where id = 2", rows("item", 2), ()),
        ("select * from item", rows("item", 1, 2, 3), ()),
        ("select name from item where price > 100", set(), ()),
        ("select name from item order by price desc limit 1", rows("item", 3), ()),
        ("select name as n from item order by n limit 1 offset 1", set(), ("item",)),
        ("select count(*) from item where price < 5", rows("item", 1, 2), ()),
        ("select count(*) from item limit 1", rows("item", 1, 2, 3), ()),
        ("select max(price) from item", rows("item", 1, 2, 3), ()),
        ("select distinct price > 2 from item", rows("item", 1, 2, 3), ()),
        ("select many, count(*) from sold group by many having count(*) > 0", rows("sold", 1, 2, 3), ()),
        ("select i.name, s.many from item i join sold as s on s.item = i.id", rows("item", 1, 3) | rows("sold", 1, 2, 3), ()),
        ("select name from item, sold where item = id and many = 6", rows("item", 1) | rows("sold", 2), ()),
        ("select name from item left join sold on item = id where id = 2", rows("item", 2), ()),
        ("select n from word where text = 'b'", rows("word", "b"), ()),
        ('select "from" from "odd name"', rows("odd name", 1), ()),
        ("select ' from sold ' as \"where\" from main.item -- from sold\n where id = 1;", rows("item", 1), ()),
        ("select name from item where id in (select item from sold)", rows("item", 1, 3), ("sold",)),
        ("select (select price from item j where j.id = 1) from item where id = 2", rows("item", 2), ("item",)),
        ("select name from cheap", set(), ("item",)),
        ("select id from item union select item from sold", set(), ("item", "sold")),
        ("with x as (select * from item) select * from x", set(), ("item",)),
        ("select name from (select * from item) where id = 1", set(), ("item",)),
        ("select value, name from json_each('[1]'), item where item.id = value", rows("item", 1), ()),
        ("update item set price = price + 1 where id > 1", rows("item", 2, 3), ()),
        ("update item set price = 0 where id in (select item from sold)", rows("item", 1, 3), ("sold",)),
        ("delete from word where n = 2", rows("word", "b"), ()),
        ("insert into sold select id, 1 from item", set(), ("item",)),
        ("insert into sold values (1, 1)", set(), ()),
        ("create index by_price on item (price)", set(), ()),
    ],
)
def test_the_rows_that_a_statement_reads(past: History, sql: str, expected: set[Any], tables: tuple[str, ...]) -> None:
    found = reads(past, sql)
    assert (set(found.rows), found.tables) == (expected, tables)
