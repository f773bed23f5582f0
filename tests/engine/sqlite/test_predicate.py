"""What a statement is about: found out from its text, or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from retroact.engine.sqlite.predicate import one_value, understood


@pytest.mark.parametrize(
    ("sql", "where"),
    [
        ("select * from t where k = :k", [("k", "k")]),
        ("SELECT a, count(*) FROM t AS x WHERE x.k = :k AND (a > 1 OR b = 2) GROUP BY a LIMIT 3;", [("k", "k")]),
        ("select 1 from \"t\" where [k] == 'it''s' and 7 = n", [("k", "it's"), ("n", 7)]),
        ("select * from t where k = :k -- and no more", [("k", "k")]),
        ("select * from t where not a = 1 and k is 2.5", [("k", 2.5)]),
        ("update t set n = n + :n, k = :other where k = :k returning n", [("k", "k")]),
        ("delete from t where k = :k", [("k", "k")]),
        ("select * from t where k = :k collate nocase", []),
        ("select * from t where k = :k + 1 and -k = 1 and k > 1 and k is not 3 and lower(k) = 'a' and k = n", []),
    ],
)
def test_a_simple_statement_is_about_rows_with_certain_values(sql: str, where: list[tuple[str, Any]]) -> None:
    found = understood(sql)
    assert found is not None
    assert (found.table, list(found.where)) == ("t", where)


@pytest.mark.parametrize(
    "sql",
    [
        "select * from t",
        "select * from t where a = 1 or b = 2",
        "select * from t, u where a = 1",
        "select * from t join u using (k) where a = 1",
        "select * from t where a = (select max(a) from t)",
        "select (select 1 from u) from t where a = 1",
        "select 1 from t where a between 1 and b = 2",
        "select * from t where a = 1 union select * from u",
        "select * from json_each(:k) where k = 1",
        "select * from main.t where k = 1",
        "with u as (values (1)) select * from u where k = 1",
        "update t set n = 1",
        "update or ignore t set n = 1 where k = 1",
        "update t set n = u.n from u where t.k = 1",
        "delete from t",
        "insert or replace into t (k) values (1)",
        "insert into t (k) values (1) on conflict (k) do nothing",
        "insert into t (k) select k from t",
        "replace into t (k) values (1)",
        "create table t (k)",
        "",
    ],
)
def test_what_is_not_certain_is_not_understood(sql: str) -> None:
    assert understood(sql) is None


def test_an_insert_says_which_values_it_gives() -> None:
    one, several = understood("insert into t (id, k) values (:id, 'a')"), understood("insert into t (k) values ('a'), ('b')")
    assert one is not None
    assert several is not None
    assert one.given == (("id", "id"), ("k", "a"))
    assert several.given is None


@pytest.mark.parametrize(("sql", "one"), [("select count(*) from t where a = 1", True), ("select min(a.b) as m from t", True),
    ("select count(*) from t group by k", False), ("select max(a), b from t", False), ("select sum(a) from t", False)])  # fmt: skip
def test_a_count_does_not_show_the_order_of_rows(sql: str, one: bool) -> None:
    assert one_value(sql) is one
