"""Statements by a seed: every feature of SQLite that has ever made a copy of a database differ from the database."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

Statement = tuple[str, dict[str, Any]]

SCHEMA = (
    "create table auto (id integer primary key autoincrement, name text unique, n int default (abs(random()) % 9))",
    "create table bare (a, b)",
    "create table nullkey (k text primary key, v, at text default current_timestamp)",
    "create table pair (k text, j int, v, primary key (k, j)) without rowid",
    "create table folded (k text collate nocase primary key, v) without rowid",
    "create table tree (id integer primary key, up integer references tree (id) on delete cascade on update cascade, name text)",
    "create table leaf (id integer primary key, up integer references tree (id) on delete set null, name)",
    "create table late (up integer references tree (id) deferrable initially deferred)",
    "create table made (a int, b text, c generated always as (a * 2) stored, d generated always as (b || '!') virtual)",
    "create table fixed (a int, c generated always as (a + 1) stored)",
    "create table exact (i int, r real, t text, b blob, x any) strict",
    "create table big (id integer primary key, data blob)",
    'create table "we""ird" ("rowid" text, "a b" int, "select" text)',
    "create table journal (what text, id, seen int)",
    "create virtual table docs using fts5(title, body)",
    "create table source (id integer primary key, body text)",
    "create virtual table found using fts5(body, content=source, content_rowid=id)",
    "create trigger source_i after insert on source begin insert into found (rowid, body) values (new.id, new.body); end",
    "create trigger source_d after delete on source begin insert into found (found, rowid, body) values ('delete', old.id, old.body); end",
    "create trigger auto_i after insert on auto begin insert into journal values ('i', new.id, (select count(*) from auto)); end",
    "create trigger auto_u after update on auto begin insert into journal values ('u', old.id, new.n); end",
    "create trigger auto_d before delete on auto begin insert into journal values ('d', old.id, old.n);"
    " delete from bare where a = old.id; end",
    "create trigger pair_i before insert on pair when new.j > 40 begin select raise(ignore); end",
    "create trigger pair_x before insert on pair when new.j = 39 begin select raise(abort, 'not 39'); end",
    "create view seen as select id, name from auto",
    "create trigger seen_i instead of insert on seen begin insert into auto (name) values (new.name); end",
    "create index bare_a on bare (a) where b is not null",
    "create index made_d on made (d, abs(a))",
)
#: Tables that live on from beginning to end, with a column to ask about.
LASTING = ("auto", "bare", "nullkey", "pair", "tree", "leaf", "made", "exact", "big", "journal", "source")
WORDS = ("apple", "pear", "fig", "", "Ünïcode ☃", "a'b", 'q"q', "x" * 300, "APPLE", "\x00nul")


class Program:
    """Draws transactions. Mutable: it remembers which further tables it made."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._made = 0
        self._extra: dict[str, list[str]] = {}
        self._kinds: tuple[tuple[int, Callable[[], list[Statement]]], ...] = (
            (12, self._auto), (8, self._bare), (8, self._nullkey), (10, self._pair), (4, self._folded), (10, self._tree),
            (6, self._generated), (6, self._exact), (3, self._big), (5, self._weird), (8, self._words), (6, self._external),
            (4, self._many), (5, self._reading), (7, self._schema), (8, self._extras), (3, self._trim),
        )  # fmt: skip

    def transaction(self) -> list[Statement]:
        """The statements of one transaction."""
        chosen: list[Statement] = []
        for _ in range(self.random.choice((1, 1, 1, 2, 3))):
            weights = [weight for weight, _ in self._kinds]
            chosen += self.random.choices([draw for _, draw in self._kinds], weights)[0]()
        return chosen

    # --- values

    def _n(self, top: int = 40) -> int:
        return self.random.randrange(top)

    def _word(self) -> str:
        return self.random.choice(WORDS)

    def _value(self) -> Any:
        return self.random.choice((None, self._n(), -(2**63), 2**63 - 1, 0.1, -0.0, 1e300, 2.0, self._word(), self._n(3)))

    def _one(self, *choices: Statement) -> list[Statement]:
        return [self.random.choice(choices)]

    # --- tables of each kind

    def _auto(self) -> list[Statement]:
        name = {"name": f"{self._word()}{self._n(12)}", "n": self._n()}
        return self._one(
            ("insert into auto (name, n) values (:name, :n)", name),
            ("insert or ignore into auto (name, n) values (:name, :n)", name),
            ("insert or replace into auto (name, n) values (:name, :n)", name),
            ("insert or fail into auto (name, n) values (:name, 1), (:name || 'x', 2), (:name, :n)", name),
            ("insert into auto (name, n) values (:name, :n) on conflict (name) do update set n = excluded.n + n returning id, n", name),
            ("insert into auto (name, n) values (:name, :n) on conflict do nothing returning id", name),
            ("insert into auto (id, name) values (:n + 100, :name)", name),
            ("update auto set n = n + 1 where id % 3 = :n % 3 returning *", {"n": name["n"]}),
            ("update or replace auto set name = :name where id % 5 = :n % 5", name),
            ("update or ignore auto set name = :name where id % 5 = :n % 5", name),
            ("update auto set id = id + 1000 where id % 7 = :n % 7", {"n": name["n"]}),
            ("delete from auto where id % 4 = :n % 4 returning name", {"n": name["n"]}),
            ("insert into seen (name) values (:name || :n)", name),
            ("update sqlite_sequence set seq = seq + 5 where name = 'auto'", {}),
            ("delete from sqlite_sequence where name = 'auto'", {}),
            ("insert into auto default values", {}),
        )

    def _bare(self) -> list[Statement]:
        pair = {"a": self._value(), "b": self._value()}
        return self._one(
            ("insert into bare values (:a, :b)", pair),
            ("insert into bare values (:a, :b), (:a, :b), (null, null)", pair),
            ("insert into bare (rowid, a, b) values (:n, 1, 2)", {"n": self._n(500)}),
            ("insert or replace into bare (rowid, a, b) values (:n, randomblob(20), random())", {"n": self._n(60)}),
            ("update bare set b = :b where a is :a", pair),
            ("update bare set rowid = rowid + 1000 where rowid % 9 = :n", {"n": self._n(9)}),
            ("update bare set rowid = -rowid where rowid % 9 = :n", {"n": self._n(9)}),
            ("delete from bare where a is :a", {"a": pair["a"]}),
            ("update bare set a = auto.n from auto where auto.id % 4 = bare.rowid % 4", {}),
            ("delete from bare where rowid in (select rowid from bare order by rowid desc limit 3)", {}),
        )

    def _nullkey(self) -> list[Statement]:
        key = {"k": self.random.choice((None, None, self._word(), "a", "b"))}
        return self._one(
            ("insert into nullkey (k, v) values (:k, random())", key),
            ("insert or replace into nullkey (k, v) values (:k, datetime('now'))", key),
            ("insert into nullkey (k, v) values (:k, 1) on conflict (k) do update set v = v || '+', k = excluded.k || 'z'", key),
            ("update nullkey set v = 1.5 where k is :k", key),
            ("update nullkey set k = null where k = :k", key),
            ("update or replace nullkey set k = 'a' where k is :k", key),
            ("delete from nullkey where k is :k", key),
        )

    def _pair(self) -> list[Statement]:
        row = {"k": self.random.choice((*WORDS[:5], "1", "")), "j": self._n(45), "v": self._value()}
        return self._one(
            ("insert into pair values (:k, :j, :v)", row),
            ("insert or replace into pair values (:k, :j, :v)", row),
            ("insert into pair values (:k, :j, :v) on conflict do update set v = excluded.v, j = j + 1 returning *", row),
            ("update pair set j = j + 1 where k = :k", {"k": row["k"]}),
            ("update or replace pair set k = :k where j % 4 = :j % 4", {"k": row["k"], "j": row["j"]}),
            ("delete from pair where j = :j", {"j": row["j"]}),
            ("insert or ignore into pair select k || 'c', j, v from pair limit 5", {}),
            ("insert into pair values (:k, null, 1)", {"k": row["k"]}),
        )

    def _folded(self) -> list[Statement]:
        row = {"k": self.random.choice(("apple", "APPLE", "Apple", "b", "B")), "v": self._value()}
        return self._one(
            ("insert or replace into folded values (:k, :v)", row),
            ("update folded set k = :k where k = :k", {"k": row["k"]}),
            ("update folded set v = :v where k = :k", row),
            ("delete from folded where k = :k", {"k": row["k"]}),
        )

    def _tree(self) -> list[Statement]:
        row = {"id": self._n(30), "up": self.random.choice((None, self._n(30)))}
        up = {"up": row["up"]}
        return self._one(
            ("insert into tree values (:id, :up, 't')", row),
            ("insert or replace into tree values (:id, :up, 'r')", row),
            ("update tree set id = id + 50 where id = :id", {"id": row["id"]}),
            ("delete from tree where id = :id", {"id": row["id"]}),
            ("delete from tree where up is null and id % 3 = 0", {}),
            ("insert into leaf (up, name) values (:up, 'l')", up),
            ("update leaf set up = :up where id % 3 = 1", up),
            ("insert into late values (:up)", up),
            ("delete from late where up is null or up % 2 = 0", {}),
        )

    def _generated(self) -> list[Statement]:
        row = {"a": self._n(), "b": self._word()}
        return self._one(
            ("insert into made (a, b) values (:a, :b)", row),
            ("update made set a = :a where b = :b returning c, d", row),
            ("delete from made where c = :a", {"a": row["a"]}),
            ("insert into fixed (a) values (:a)", {"a": row["a"]}),
            ("update fixed set a = a + 1 where c % 2 = :a % 2", {"a": row["a"]}),
            ("delete from fixed where c < :a", {"a": row["a"]}),
        )

    def _exact(self) -> list[Statement]:
        return self._one(
            ("insert into exact values (:i, :r, :t, randomblob(9), :x)", {"i": self._n(), "r": 0.1, "t": self._word(), "x": self._value()}),
            ("insert into exact values ('no', 1, 1, 1, 1)", {}),
            ("insert into exact (r, x) values (9e999, -9e999)", {}),
            ("update exact set r = r * 3, b = zeroblob(:n) where i % 3 = 0", {"n": self._n(100)}),
            ("delete from exact where i % 4 = 0 or i is null", {}),
        )

    def _big(self) -> list[Statement]:
        row = {"id": self._n(6), "n": self.random.choice((10, 100, 1000, 5000, 9000, 30_000, 90_000))}
        return self._one(
            ("insert or replace into big values (:id, randomblob(:n))", row),
            ("insert or replace into big values (:id, zeroblob(:n))", row),
            ("update big set data = substr(data, 1, :n) || x'00ff' where id = :id", row),
            ("delete from big where id = :id", {"id": row["id"]}),
        )

    def _weird(self) -> list[Statement]:
        return self._one(
            ('insert into "we""ird" values (:t, :n, null)', {"t": self._word(), "n": self._n()}),
            ('update "we""ird" set "a b" = "a b" + 1 where "rowid" = :t', {"t": self._word()}),
            ('update "we""ird" set "rowid" = :t where "a b" % 3 = 0', {"t": self._word()}),
            ('delete from "we""ird" where "a b" % 5 = 1', {}),
        )

    def _words(self) -> list[Statement]:
        row = {"t": self._word(), "b": " ".join(self._word() for _ in range(self._n(9)))}
        return self._one(
            ("insert into docs values (:t, :b)", row),
            ("insert into docs values (:t, :b), (:b, :t)", row),
            ("update docs set body = :b where rowid % 3 = 1", {"b": row["b"]}),
            ("delete from docs where docs match 'apple'", {}),
            ("insert or replace into docs (rowid, title, body) values (:n, :t, 'fig')", {"n": self._n(20), "t": row["t"]}),
            ("insert into docs (docs) values ('optimize')", {}),
            ("insert into docs (docs, rank) values ('merge', 16)", {}),
            ("select * from docs where docs match 'fig or pear' order by rank, rowid", {}),
        )

    def _external(self) -> list[Statement]:
        row = {"id": self._n(25), "b": f"{self._word()} {self._word()}"}
        return self._one(
            ("insert into source values (:id, :b)", row),
            ("delete from source where id = :id", {"id": row["id"]}),
            ("insert into found (found) values ('rebuild')", {}),
            ("select rowid from found where found match 'apple' order by rowid", {}),
        )

    def _many(self) -> list[Statement]:
        count = {"n": self._n(60)}
        rows = "with recursive c (i) as (select 1 union all select i + 1 from c where i < :n)"
        return self._one(
            (f"{rows} insert into bare select i, random() from c", count),
            (f"insert into pair {rows} select 'm' || i, i, null from c where true on conflict do update set v = j", count),
            (f"{rows} insert into leaf (name) select i from c", count),
        )

    def _reading(self) -> list[Statement]:
        return self._one(
            ("select * from auto", {}),
            ("select rowid, * from bare", {}),
            ("select k, count(*) from pair group by k", {}),
            ("select * from nowhere", {}),
            ("select random(), datetime('now'), last_insert_rowid(), changes()", {}),
        )

    def _trim(self) -> list[Statement]:
        """Keeps the tables small, now and then with the deletion that takes whole trees of pages."""
        table = self.random.choice(("bare", "journal", "leaf", "pair", "docs", "auto", "nullkey", "made", "exact"))
        if self._n(3) == 0:
            return [(f"delete from {table}", {})]
        order = "k" if table == "pair" else "rowid"
        key = "(k, j) in (select k, j" if table == "pair" else "rowid in (select rowid"
        return [(f"delete from {table} where {key} from {table} order by {order} limit 30)", {})]

    # --- the schema

    def _schema(self) -> list[Statement]:
        draw = self.random.choice((self._create, self._create, self._alter, self._alter, self._rename, self._drop, self._index, self._misc))
        return draw()

    def _create(self) -> list[Statement]:
        self._made += 1
        name = f"extra{self._made}"
        if len(self._extra) > 4:
            return self._drop()
        self._extra[name] = ["a", "b"]
        how = self.random.choice(
            ("(a, b)", "(a integer primary key, b)", "(a integer primary key autoincrement, b)",
             "(a text, b, primary key (a, b)) without rowid", "(a int primary key desc, b unique)", "(a integer primary key desc, b)")
        )  # fmt: skip
        made: list[Statement] = [(f"create table {name} {how}", {})]
        if self._n(3) == 0:
            made = [(f"create table {name} as select name as a, n as b from auto", {})]
        if self._n(3) == 0:
            body = f"insert into journal values ('{name}', new.a, new.b)"
            made.append((f"create trigger {name}_i after insert on {name} begin {body}; end", {}))
        return [*made, (f"insert or ignore into {name} (a, b) values (:a, :b)", {"a": self._n(), "b": self._word()})]

    def _alter(self) -> list[Statement]:
        if not self._extra:
            return self._create()
        name = self.random.choice(sorted(self._extra))
        columns = self._extra[name]
        self._made += 1
        new = f"c{self._made}"
        match self._n(3):
            case 0:
                columns.append(new)
                default = self.random.choice(("", " default 7", " text not null default 'x'", " generated always as (a || b)"))
                return [(f"alter table {name} add column {new}{default}", {})]
            case 1 if len(columns) > 2:
                return [(f"alter table {name} drop column {columns.pop()}", {})]
            case _:
                old = columns[-1]
                if old in ("a", "b"):
                    return [(f"update {name} set b = :b", {"b": self._n()})]
                columns[-1] = new
                return [(f"alter table {name} rename column {old} to {new}", {})]

    def _rename(self) -> list[Statement]:
        if not self._extra:
            return self._create()
        old = self.random.choice(sorted(self._extra))
        self._made += 1
        new = f"moved{self._made}"
        self._extra[new] = self._extra.pop(old)
        return [(f"update {old} set b = 'before'", {}), (f"alter table {old} rename to {new}", {}), (f"update {new} set b = 'after'", {})]

    def _drop(self) -> list[Statement]:
        if not self._extra:
            return self._create()
        name = self.random.choice(sorted(self._extra))
        del self._extra[name]
        return [(f"delete from {name} where a is not null", {}), (f"drop table {name}", {})]

    def _index(self) -> list[Statement]:
        self._made += 1
        if self._n(2):
            return [("drop index if exists passing", {}), ("create index passing on bare (b, a desc)", {})]
        return [("drop index if exists passing", {}), ("create index if not exists passing on pair (v) where v is not null", {})]

    def _misc(self) -> list[Statement]:
        return self._one(
            ("reindex", {}),
            ("analyze", {}),
            ("drop trigger if exists auto_u", {}),
            ("create trigger if not exists auto_u after update on auto begin insert into journal values ('u', old.id, new.n); end", {}),
            ("drop view if exists passing_view", {}),
            ("create view if not exists passing_view as select * from pair", {}),
        )

    def _extras(self) -> list[Statement]:
        if not self._extra:
            return self._create()
        name = self.random.choice(sorted(self._extra))
        row = {"a": self._n(), "b": self._value()}
        return self._one(
            (f"insert into {name} (a, b) values (:a, :b)", row),
            (f"insert or replace into {name} (a, b) values (:a, :b)", row),
            (f"update {name} set b = :b where a = :a", row),
            (f"update or ignore {name} set a = a + 1", {}),
            (f"delete from {name} where a = :a", {"a": row["a"]}),
        )
