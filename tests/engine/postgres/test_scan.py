"""Where a parameter stands in a SQL text, and where it does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.postgres import Databases

from retroact.engine.postgres.literal import literal
from retroact.engine.postgres.scan import scan
from retroact.engine.postgres.shape import understand
from retroact.errors import BadStatement


@pytest.mark.parametrize(
    ("sql", "numbered", "names"),
    [
        ("select :a", "select $1", ("a",)),
        ("select :a, :b, :a", "select $1, $2, $1", ("a", "b")),
        ("select :a;", "select $1", ("a",)),
        ("select :a ; -- done :b", "select $1 ", ("a",)),
        ("select ':a', \":a\", :a", "select ':a', \":a\", $1", ("a",)),
        ("select 'it''s :a' || :a", "select 'it''s :a' || $1", ("a",)),
        (r"select E'\' :a' || :a", r"select E'\' :a' || $1", ("a",)),
        (r"select '\' || :a || '\'", r"select '\' || $1 || '\'", ("a",)),
        ("select E'a'\n  '\\' :a' || :b", "select E'a'\n  '\\' :a' || $1", ("b",)),
        ("select :a::int, b::text", "select $1::int, b::text", ("a",)),
        ("select $$ :a $$, $q$ $$ :a $$ $q$, :b", "select $$ :a $$, $q$ $$ :a $$ $q$, $1", ("b",)),
        ("select a$b$c, :a, a$b$c", "select a$b$c, $1, a$b$c", ("a",)),
        ("select /* :a /* :b */ :c */ :d", "select /* :a /* :b */ :c */ $1", ("d",)),
        ("select 1 -- :a\n + :b", "select 1 -- :a\n + $1", ("b",)),
        ("select x[1:2], x[lo:hi], x[:lo], x[1 : :hi]", "select x[1:2], x[lo:hi], x[$1], x[1 : $2]", ("lo", "hi")),
        ("select f(a := :a)", "select f(a := $1)", ("a",)),
        ("select j -> 'a' ? 'b', j #>> '{a,b}', j @> :j", "select j -> 'a' ? 'b', j #>> '{a,b}', j @> $1", ("j",)),
        ("select U&'d\\0061' || B'1' || :a", "select U&'d\\0061' || B'1' || $1", ("a",)),
        ("select :größe", "select $1", ("größe",)),
    ],
)
def test_parameters_are_found(sql: str, numbered: str, names: tuple[str, ...]) -> None:
    scanned = scan(sql)
    assert scanned.problem is None
    assert not scanned.more
    assert scanned.numbered() == (numbered, names)


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("begin", "the platform begins and commits"),
        ("  /* x */ COMMIT", "the platform begins and commits"),
        ("rollback", "the platform begins and commits"),
        ("savepoint mine", "instead of SAVEPOINT"),
        ("release mine", "instead of SAVEPOINT"),
        ("set search_path to x", "changes the connection"),
        ("select set_config('a.b', 'c', false)", "changes the connection"),
        ("prepare x as select 1", "prepares statements by itself"),
        ("declare c cursor for select 1", "a cursor"),
        ("copy t from stdin", "COPY"),
        ("truncate t", "use `delete from`"),
        ("vacuum", "VACUUM"),
        ("listen x", "changes the connection"),
        ("select 1; select 2", "one call runs one statement"),
        ("select 1; ; drop table t -- x", "one call runs one statement"),
        ("select * from t where id = $1", "named (:item)"),
        ("select 'abc", "is not closed"),
        ("select $x$ abc $$", "is not closed"),
        ("select /* abc", "a comment is not closed"),
        ("delete from retroact.record", "belongs to the trace"),
        ('update "retroact".record set run = 1', "belongs to the trace"),
        ("with x as (delete from retroact.record returning 1) select * from x", "belongs to the trace"),
        ("drop schema retroact cascade", "belongs to the trace"),
        ("create temp table x (a int)", "TEMP"),
        ("create local temporary view x as select 1", "TEMP"),
        ("select 1 into temp x", "TEMP"),
        ("insert into pg_temp.x values (1)", "TEMP"),
    ],
)
def test_what_a_body_may_not_run(sql: str, problem: str) -> None:
    with pytest.raises(BadStatement) as caught:
        understand(sql, "test", 1)
    assert problem in str(caught.value)
    assert sql in str(caught.value)


@pytest.mark.parametrize(
    "sql",
    [
        "select 1;",
        "select 1; -- and a comment",
        "/* first */ select 1 /* last */ ;;",
        "select 'begin; rollback' as text",
        "select run from retroact.runs",
        "create function f() returns int begin atomic select 1; select 2; end",
        "",
    ],
)
def test_what_a_body_may_run(sql: str) -> None:
    understand(sql, "test", 1)


@pytest.fixture(scope="module")
def server(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(databases.url(tmp_path_factory.mktemp("scan")), autocommit=True) as conn:
        yield conn


PARTS = st.lists(
    st.sampled_from(["'", "''", "\\", "$$", "$a$", '"', "--", "/*", "*/", ":p", "\n", ";", "x", " ", "é", "E'", "::", "[", "]"]), max_size=8
).map("".join)


@given(noise=PARTS)
@settings(max_examples=300, deadline=None)
def test_postgres_agrees_about_what_is_in_a_string(server: psycopg.Connection[Any], noise: str) -> None:
    """Whatever stands in a string of any form, the parameter behind it is found, and nothing in it is."""
    quoted = [literal(noise), "'" + noise.replace("'", "''") + "'"]
    if "$q$" not in noise and not noise.endswith("$"):
        quoted.append(f"$q${noise}$q$")
    for text in quoted:
        scanned = scan(f"select {text}, :p")
        assert scanned.parameters == ("p",)
        assert not scanned.more
        assert server.execute(scanned.filled({"p": "7"}).encode()).fetchone() == (noise, 7)


TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
VALUES = TEXTS | st.integers() | st.binary() | st.booleans() | st.floats()


@given(value=VALUES)
@settings(max_examples=300, deadline=None)
def test_a_literal_is_its_value(server: psycopg.Connection[Any], value: object) -> None:
    server.execute("set bytea_output to 'hex'")
    server.execute("set escape_string_warning to off")
    kinds = {str: "text", int: "numeric", bytes: "bytea", bool: "bool", float: "float8"}
    for conforming in ("on", "off"):
        server.execute(f"set standard_conforming_strings to {conforming}".encode())
        [found] = server.execute(f"select ({literal(value)})::{kinds[type(value)]}".encode()).fetchone() or ()  # pyright: ignore
        assert found == value or repr(found) == repr(value) == "nan"
    server.execute("set standard_conforming_strings to on")
