"""What a statement can touch, told from its text."""

from __future__ import annotations

from typing import Any

import apsw
import pytest

from retroact.engine.footprint import Access, Parameter, Reach
from retroact.engine.sqlite.footprint import Footprints

SCHEMA = [
    "create table acct (id integer primary key, bal integer, n integer)",
    "create table orders (id text primary key, item integer, note)",
    "create index by_item on orders (item)",
    "create index by_note on orders (note)",
    "create table pairs (x text, y integer, n integer, primary key (x, y)) without rowid",
    "create table nocase (k text collate nocase primary key)",
    "create table line (owner text references orders (id) on delete cascade, n integer)",
    "create table counted (id integer primary key autoincrement, k text unique)",
    "create table watched (x integer)",
    "create trigger watch after update on watched begin update acct set n = 0 where id = new.x; end",
    "create view rich as select id from acct where bal > 100",
]

#: What is touched, as `table`, `table[:rowid]`, `table(column=:value)` or `table+` (the next rowid).
CASES = {
    "select bal from acct where id = :i": "acct[:i]",
    "select bal from acct where rowid = :i and n > 3": "acct[:i]",
    "select bal from acct where id = 7": "acct[7]",
    "select bal from acct where id = :i or id = :j": "acct",
    "select bal from acct where id in (:i, :j)": "acct",
    "select bal from acct where id > :i": "acct",
    "select bal from acct where id = :i + 1": "acct",
    "select bal from acct where id = (select max(id) from acct)": "acct",
    "select max(id) from acct": "acct",
    "select count(*) from acct": "acct",
    "select * from rich": "acct",
    "update acct set bal = :b, n = n + 1 where id = :i": "acct[:i] writes acct",
    "update acct set id = :j where id = :i": "acct[:i] acct[:j] writes acct",
    "update acct set bal = 0": "acct writes acct",
    "delete from acct where id = :i": "acct[:i] writes acct",
    "delete from acct": "acct writes acct",
    "insert into acct (bal) values (:b)": "acct+ writes acct",
    "insert into acct values (:i, 1, 2)": "acct+ acct[:i] writes acct",
    "insert or replace into acct values (:i, 1, 2)": "acct+ acct[:i] writes acct",
    "insert into acct values (:i, 1, 2) on conflict (id) do update set n = n + 1": "acct+ acct[:i] writes acct",
    "select * from orders where id = :o": "orders(id=:o)",
    "select * from orders where item = :i": "orders(item=:i)",
    "select * from orders where item = :i and id = :o": "orders(id=:o)",
    "select * from orders where note = :n": "orders",
    "select * from orders where item >= :i": "orders",
    "insert into orders values (:o, :i, null)": "orders(id=:o) orders+ writes orders",
    "insert or ignore into orders values (:o, :i, null)": "orders(id=:o) orders+ writes orders",
    "delete from orders where id = :o": "line orders orders(id=:o) writes line orders",
    "select n from pairs where x = :x and y = :y": "pairs(x=:x, y=:y)",
    "select n from pairs where x = :x": "pairs(x=:x)",
    "select n from pairs where y = :y": "pairs",
    "update pairs set n = 1 where x = :x and y = 2": "pairs(x=:x, y=2) writes pairs",
    "select * from nocase where k = :k": "nocase",
    "insert into line values (:o, 1)": "line+ orders(id=:o) writes line",
    "insert into counted (k) values (:k)": "counted counted(k=:k) counted+ sqlite_sequence sqlite_sequence+ writes counted sqlite_sequence",
    "update watched set x = 1": "acct watched writes acct watched",
    "select orders.id from orders join acct on acct.id = orders.item where orders.id = :o": "acct orders(id=:o)",
    "with recursive s(g) as (select 1 union all select g + 1 from s where g < 5) select g from s": "",
    "select value from json_each(:j)": "",
    "select 1": "",
    "select * from sqlite_schema": "sqlite_schema",
    "select name from pragma_function_list": "everything",
    "pragma table_info(acct)": "everything",
    "create table more (x)": "everything",
    "select * from nowhere": "everything",
    "not even SQL": "everything",
}


def shown(access: Access) -> str:
    terms = [f":{t.name}" if isinstance(t, Parameter) else str(t.value) for t in access.terms]
    match access.reach:
        case Reach.ROW:
            return f"{access.table}[{terms[0]}]"
        case Reach.KEY:
            return f"{access.table}({', '.join(f'{c}={t}' for c, t in zip(access.columns, terms, strict=True))})"
        case Reach.NEXT_ROWID:
            return f"{access.table}+"
        case Reach.TABLE:
            return access.table


@pytest.fixture
def footprints() -> Footprints:
    database = apsw.Connection(":memory:")
    database.execute("pragma foreign_keys = on")
    for sql in SCHEMA:
        database.execute(sql)
    return Footprints(database)


@pytest.mark.parametrize("sql", CASES)
def test_what_a_text_touches(footprints: Footprints, sql: str) -> None:
    found = footprints.of(sql)
    text = "everything" if found.opaque else " ".join(sorted(map(shown, found.accesses)))
    if found.writes:
        text += f" writes {' '.join(sorted(found.writes))}"
    assert text == CASES[sql]


@pytest.mark.parametrize(
    ("sql", "parameters", "values"),
    [
        ("select bal from acct where id = :i", {"i": 5}, (5,)),
        ("select bal from acct where id = :i", {"i": "5"}, None),
        ("select bal from acct where id = :i", {"i": 5.0}, None),
        ("select bal from acct where id = :i", {"i": True}, None),
        ("select bal from acct where id = :i", {}, None),
        ("select * from orders where id = :o", {"o": "x"}, ("x",)),
        ("select * from orders where id = :o", {"o": 7}, None),
        ("select n from pairs where x = :x and y = :y", {"x": "x", "y": 1}, ("x", 1)),
        ("select n from pairs where x = :x and y = :y", {"x": "x", "y": None}, None),
    ],
)
def test_a_value_that_sqlite_would_convert_is_not_compared(
    footprints: Footprints, sql: str, parameters: dict[str, Any], values: tuple[Any, ...] | None
) -> None:
    (access,) = footprints.of(sql).accesses
    assert access.values(parameters) == values


def test_another_schema_is_looked_at_again(footprints: Footprints) -> None:
    assert footprints.of("select * from nowhere").opaque
    footprints._database.execute("create table nowhere (x)")
    footprints.forget()
    assert [access.table for access in footprints.of("select * from nowhere").accesses] == ["nowhere"]
