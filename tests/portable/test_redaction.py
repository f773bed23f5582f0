"""A redacted file does not have the values, and still says honestly what happened."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import apsw
import pytest

from retroact import App
from retroact.engine.sqlite.portable import file
from retroact.errors import CannotRedact
from retroact.function.code import load_path
from retroact.portable import ExportOptions, Past, export, open_portable
from retroact.replay.divergence import Verdict

SHOP = """
from retroact import invariant, step, transaction, workflow


class Unknown(Exception):
    pass


@transaction
def setup(conn) -> None:
    conn.execute("create table customers (email text primary key, phone integer unique, card blob, name text collate nocase unique)")
    conn.execute("create table orders (id integer primary key, customer text references customers (email), note text)")
    conn.execute("create index by_customer on orders (customer)")
    conn.execute("create table log (what text)")
    conn.execute("create trigger watch after insert on orders begin insert into log values ('ordered ' || new.id); end")


@transaction
def join(conn, email: str, phone: int, name: str) -> str:
    card = email.encode() * 3
    conn.execute("insert into customers values (:email, :phone, :card, :name)", email=email, phone=phone, card=card, name=name)
    return f"welcome, {name} <{email}>"


@transaction
def leave(conn, email: str) -> int:
    return conn.execute("delete from customers where email = :email", email=email)


@transaction
def find(conn, email: str) -> dict[str, str]:
    row = conn.row("select * from customers where email = :email", email=email)
    if row is None:
        raise Unknown(f"nobody is called {email}")
    return {"email": row.email, "loud": row.email.upper()}


@transaction
def order(conn, customer: str, loud: str) -> int:
    conn.execute("insert into orders (customer, note) values (:customer, :note)", customer=customer, note="for " + str(len(loud)))
    return conn.value("select max(id) from orders where customer = :customer", customer=customer)


@transaction
def everybody(conn) -> list[str]:
    return [row.email for row in conn.rows("select email from customers order by email")]


@transaction
def favour(conn, email: str) -> str:
    if email.startswith("alice"):
        conn.execute("insert into log values ('a favour')")
        return "yes"
    return "no"


@transaction
def ranked(conn) -> list[list[str]]:
    ranks = iter(["gold", "silver", "bronze"])
    return [[row.email, next(ranks)] for row in conn.rows("select email from customers order by phone")]


@transaction
def award(conn, rank: str) -> str:
    return "congratulations to " + rank


@transaction
def copy(conn) -> None:
    conn.execute("insert into log select email from customers")


@step
def mail(email: str) -> str:
    return "sent to " + email


@workflow
def buy(email: str) -> str:
    found = find(email)
    number = order(found["email"], found["loud"])
    return f"{mail(email)} for {number}"


@invariant
def orders_have_customers(conn) -> bool:
    return conn.value("select count(*) from orders where customer not in (select email from customers)") == 0
"""
PEOPLE = [
    ("alice.liddell@example.com", 4915112345, "Alice Liddell"),
    ("bob.dylan@example.org", 4915154321, "Bob Dylan"),
    ("zo\N{LATIN SMALL LETTER E WITH DIAERESIS}.smith@example.net", 4915100000, "Zo\N{LATIN SMALL LETTER E WITH DIAERESIS} Smith"),
]
GONE = ("gone.girl@example.com", 4915199999, "Gone Girl")
COLUMNS = ("customers.email", "customers.phone", "customers.card", "customers.name")
SECRETS = [text for email, phone, name in (*PEOPLE, GONE) for text in (email, str(phone), name)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    (folder / "shop.py").write_text(SHOP)
    with App(folder / "shop.db", load_path(folder / "shop.py")) as app:
        app.run("setup", run="setup")
        app.run("join", *PEOPLE[0], run="joins")
        app.run("join", *GONE, run="is there for a while")
        app.run("leave", GONE[0], run="is gone")  # what it was stays behind in free space
        app.run("join", *PEOPLE[1], run="joins too")
        app.run("buy", PEOPLE[0][0], run="one")
        app.run("join", *PEOPLE[2], run="joins later")
        app.run("buy", PEOPLE[2][0], run="two")
        with pytest.raises(Exception, match="nobody"):
            app.run("find", GONE[0], run="nobody")
        with pytest.raises(apsw.ConstraintError):
            app.run("join", *PEOPLE[1], run="twice")
        app.run("everybody", run="everybody")
        app.run("ranked", run="ranked")
        app.run("award", "gold", run="award")
        app.run("favour", PEOPLE[0][0], run="favour")
        app.run("copy", run="copy")
        for number in range(10):  # so that the copies are there already in the state in which the last one's span begins
            app.run("award", "gold", run=f"award-{number}")
        app.run("buy", PEOPLE[1][0], run="last")
    return folder


def texts_of(path: Path) -> bytes:
    return b"\n".join(file.read(path).values())


def exported(home: Path, folder: Path, runs: list[str], columns: tuple[str, ...] = COLUMNS, **options: Any) -> Any:
    return export(home / "shop.db", runs, folder / "x.retro", ExportOptions(redact=columns, overwrite=True, **options))


RUNS = ["one", "joins later", "two", "nobody", "twice"]


def test_none_of_the_values_is_in_the_file(home: Path, tmp_path: Path) -> None:
    """Neither in UTF-8 nor in UTF-16, in no record and on no page, free space included."""
    plain = export(home / "shop.db", RUNS, tmp_path / "plain.retro", ExportOptions(tables=("customers", "orders", "log")))
    content = texts_of(plain.path)
    assert all(secret.encode() in content for secret in SECRETS if "@" in secret), "the test sees what it looks for"
    found = exported(home, tmp_path, RUNS, tables=("customers", "orders", "log"))
    content = texts_of(found.path)
    for secret in SECRETS:
        for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
            assert secret.encode(encoding) not in content, secret
            assert (secret.upper()).encode(encoding) not in content, secret
    for _, phone, _ in PEOPLE:
        assert phone.to_bytes(6, "big") not in content
    assert found.notes == ()


def test_it_replays_identically_and_the_story_is_the_same(home: Path, tmp_path: Path) -> None:
    found = exported(home, tmp_path, RUNS)
    assert found.told == ()
    assert found.report.count(Verdict.IDENTICAL) == len(found.report.transactions)
    export(home / "shop.db", RUNS, tmp_path / "plain.retro")
    with open_portable(found.path) as past, open_portable(tmp_path / "plain.retro") as plain:
        assert story(past) == story(plain)
        assert past.retroact(home / "shop.py").clean
        assert past.redacted == found.redacted == (*COLUMNS, "orders.customer")


def story(past: Past) -> list[Any]:
    records = past.history.trace.records_between(past.history.pages.horizon.version, past.history.trace.last_version())
    return [
        (
            r.version,
            r.function,
            [(s.sql, s.count) for s in r.statements],
            [(c.table, c.verb, c.rowid) for c in r.changes],
            r.outcome.committed,
            r.outcome.failure and r.outcome.failure.error,
            past.history.trace.run(r.run).state,
        )
        for r in records
    ]


def test_equal_values_stay_equal_wherever_they_are(home: Path, tmp_path: Path) -> None:
    found = exported(home, tmp_path, RUNS)
    with open_portable(found.path) as past:
        end = past.history.at(found.last)
        people = end.query("select email, phone, card, name from customers order by rowid")[1]
        assert len(people) == len(PEOPLE) == len({row[0] for row in people})
        assert [row[0].encode() * 3 != row[2] for row in people]  # a value of its own, computed by nobody
        assert end.query("select count(*) from orders join customers on customer = email")[1] == [(2,)]
        assert end.query("pragma foreign_key_check")[1] == []
        two = past.history.trace.run("two")  # pyright: ignore[reportArgumentType]
        bought = two.arguments
        assert any(row[0] in bought for row in people)
        assert two.outcome is not None
        assert any(f"sent to {row[0]} for" in (two.outcome.value or "") for row in people)
        failed = past.history.trace.run("nobody").outcome  # pyright: ignore[reportArgumentType]
        assert failed is not None
        assert failed.failure is not None
        given = past.history.trace.run("nobody").arguments  # pyright: ignore[reportArgumentType]
        assert re.fullmatch(r"nobody is called [a-z]+\.[a-z]+@[a-z]+\.[a-z]+", failed.failure.message)
        assert failed.failure.message.split()[-1] in given


def test_types_nulls_and_lengths_are_kept(home: Path, tmp_path: Path) -> None:
    found = exported(home, tmp_path, ["joins later"], tables=("customers",))
    question = "select typeof(email), length(email), typeof(phone), length(phone), length(card), length(name) from customers"
    with open_portable(found.path) as past, App(home / "shop.db", load_path(home / "shop.py")) as app:
        assert past.history.at(found.base).query(question)[1] == app.history.at(found.base).query(question)[1]


def test_what_no_longer_does_the_same_is_said(home: Path, tmp_path: Path) -> None:
    """A body that compares with a literal takes another way when the value is another; an order by the value is another order."""
    found = exported(home, tmp_path, ["favour", "everybody"])
    assert not found.faithful
    assert [text for text in found.told if "favour of run favour: diverged" in text]
    with open_portable(found.path) as past:
        report = past.replay(["favour"])
        assert report.count(Verdict.DIVERGED) == 1
        record = report.transactions[0].record
        assert record.outcome.value == '"yes"', "the record still says what happened"
        assert record.changes[0].after == {"what": "a favour"}
        assert past.replay(["everybody"]).faithful


def test_what_changes_only_its_place_is_not_taken_for_derived(home: Path, tmp_path: Path) -> None:
    """Customers are ranked by something redacted, so the ranks go to others. Gold is gold in every other run all the same."""
    found = exported(home, tmp_path, ["ranked", "award"])
    with open_portable(found.path) as past:
        award = past.history.trace.run("award")  # pyright: ignore[reportArgumentType]
        assert award.arguments == '{"rank":"gold"}'
        assert award.outcome is not None
        assert award.outcome.value == '"congratulations to gold"'


def test_a_copy_in_another_column_is_refused_until_that_is_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(CannotRedact, match=r"also stands in log\. Redact the column that it is in as well: --redact TABLE.COLUMN"):
        exported(home, tmp_path, ["last"], tables=("log",))
    assert not (tmp_path / "x.retro").exists()
    found = exported(home, tmp_path, ["last"], (*COLUMNS, "log.what"), tables=("log",))
    # What a trigger writes there is no secret of anybody, but it is a value of the column; so the record has another.
    assert found.told == (found.told[0],)
    assert "order of run last: diverged" in found.told[0]
    for secret in (*SECRETS, "ordered 3"):
        assert secret.encode() not in texts_of(found.path)


def test_a_value_in_the_code_is_said(home: Path, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP.replace('startswith("alice")', '__eq__("alice.liddell@example.com")'))
    with App(tmp_path / "shop.db", load_path(tmp_path / "shop.py")) as app:
        app.run("setup", run="setup")
        app.run("join", *PEOPLE[0], run="joins")
        found = app.export(["joins"], tmp_path / "x.retro", ExportOptions(redact=COLUMNS))
    assert any("stands in the source of shop" in note for note in found.notes)


def test_every_export_has_a_key_of_its_own(home: Path, tmp_path: Path) -> None:
    exported(home, tmp_path, RUNS)
    first = texts_of(tmp_path / "x.retro")
    exported(home, tmp_path, RUNS)
    assert texts_of(tmp_path / "x.retro") != first


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (["customers.nothing"], "there is no such column. They are named TABLE.COLUMN: customers.email"),
        (["nothing.email"], "There is no such table"),
        (["email"], "there is no such column"),
        (["orders.id"], "rowids by which rows are found"),
    ],
)
def test_what_cannot_be_redacted_is_refused(home: Path, tmp_path: Path, columns: list[str], told: str) -> None:
    with pytest.raises(CannotRedact, match=re.escape(told)):
        exported(home, tmp_path, RUNS, tuple(columns))
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_id_tells_is_refused(home: Path, tmp_path: Path) -> None:
    with App(tmp_path / "shop.db", load_path(home / "shop.py")) as app:
        app.run("setup", run="setup")
        app.run("join", *PEOPLE[0], run=f"join-{PEOPLE[0][0]}")
        with pytest.raises(CannotRedact, match="id of run"):
            app.export([f"join-{PEOPLE[0][0]}"], tmp_path / "x.retro", ExportOptions(redact=COLUMNS))


def test_short_values_that_meet_one_another_are_replaced_all_the_same(tmp_path: Path) -> None:
    """All two-digit codes are taken, so on the way every new one is an old one of somebody else."""
    (tmp_path / "codes.py").write_text("""
from retroact import transaction

@transaction
def setup(conn) -> None:
    conn.execute("create table codes (id integer primary key, code integer unique not null check (code > 9), word text unique)")
    for i in range(10, 100):
        conn.execute("insert into codes values (:i, :i, 'w' || :i)", i=i)

@transaction
def find(conn, code: int) -> int:
    return conn.value("select count(*) from codes where code = :code", code=code)

@transaction
def swap(conn, code: int) -> int:
    return conn.execute("update codes set word = word || 'x' where code = :code", code=code)
""")
    with App(tmp_path / "codes.db", load_path(tmp_path / "codes.py")) as app:
        app.run("setup", run="setup")
        app.run("find", 77, run="find")
        app.run("swap", 12, run="swap")
        found = app.export(["find", "swap"], tmp_path / "x.retro", ExportOptions(redact=("codes.code", "codes.word")))
    assert found.told == ()
    with open_portable(found.path) as past:
        base = past.history.at(found.base)
        assert base.query("select count(distinct code), min(code), max(code), count(distinct word) from codes")[1] == [(90, 10, 99, 90)]
        assert base.query("select count(*) from codes where code = id")[1][0][0] < 20


def test_a_change_of_the_schema_is_made_again(home: Path, tmp_path: Path) -> None:
    found = exported(home, tmp_path, ["setup", *RUNS])
    assert found.told == ()
    with open_portable(found.path) as past:
        assert past.history.at(0).query("select count(*) from sqlite_schema where name = 'customers'")[1] == [(0,)]
        assert len(past.history.pages.states) == 2
