"""Applications made up by chance: a schema and functions from a small grammar, as the text of a module that can be recorded.

Everything that could make a replay differ is in the grammar: rowids, AUTOINCREMENT, defaults with time and chance, cascades, triggers,
generated columns, upserts, statements that fail and are forgiven, bodies that raise, the invocation's own clock and randomness.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import random
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from hypothesis import strategies as st

from retroact import App

TABLES = [
    "create table {t} (id integer primary key, k text unique, n integer default 0, at text default current_timestamp)",
    "create table {t} (id integer primary key autoincrement, k text unique, n integer default 0, at text default (datetime('subsec')))",
    "create table {t} (k text primary key, n integer default 0, id integer default (abs(random() % 1000)), at text) without rowid",
    "create table {t} (k text primary key not null, n integer default 0, id integer, at text default (hex(randomblob(3))))",
    "create table {t} (id integer primary key, k text unique, n integer default 0, at text, twice generated always as (n * 2) stored)",
    "create table {t} (id integer primary key desc, k text unique, n integer default 0, at text default (strftime('%f')))",
    "create table {t} (id integer primary key, k text unique, n integer default 0, at text, twice generated always as (n * 2) virtual)",
]
EXTRAS = [
    "create table child (p text references t0 (k) on delete cascade on update cascade, what text default (random()))",
    "create index by_n on t1 (n)",
    "create trigger watch after update on t0 begin insert into log values (new.k, old.n, new.n); end",
    "create trigger gone after delete on t1 begin insert into log values (old.k, old.n, random()); end",
    "create trigger again after insert on log when new.b > 50 begin update t1 set n = 0 where n > 50; end",
]
LINES = [
    "v = len(conn.rows('select * from {t}'))",
    "v = len(conn.rows('select k, n from {t} where n >= :a', a=a))",
    "v = [list(r) for r in conn.rows('select k, n from {t} order by k')]",
    "v = conn.value('select sum(n) from {t}')",
    "a = conn.value('select count(*) from {t} where n > :a', a=a) + 1",
    "v = conn.execute('update {t} set n = n + :a where k = :b', a=a, b=b)",
    "v = conn.execute('update {t} set n = n + 1')",
    "v = conn.execute('update {t} set n = :r where k = :b', r=rng().randrange(100), b=b)",
    "v = conn.execute('insert into {t} (k, n) values (:b, :a) on conflict (k) do update set n = n + excluded.n', a=a, b=b)",
    "v = conn.execute('insert or ignore into {t} (k, n) values (:b, :a)', a=a, b=b)",
    "v = conn.execute('insert or replace into {t} (k, n) values (:b, :a)', a=a, b=b)",
    "v = conn.execute('insert into {t} (k, n, at) values (:u, :a, :t)', u=str(uuid()), a=a, t=now().isoformat())",
    "v = conn.execute('insert into {t} (k, n) values (:b, :a)', a=a, b=b)",
    'v = forgive(lambda: conn.execute("insert into {t} (k, n) select value, :a from json_each(\'[\\"y\\", \\"z\\", \\"a\\"]\')", a=a))',
    "v = conn.execute('delete from {t} where k = :b', b=b)",
    "v = conn.execute('delete from {t} where n > :a', a=a * 10)",
    "v = conn.execute('insert into {t} (k, n) select k || :a, n from {o} order by k limit 2', a=a)",
    "v = forgive(lambda: conn.execute('insert into child (p) values (:b)', b=b))",
    "v = forgive(lambda: conn.execute('update {t} set k = k || :b where n % 3 = 0', b=b))",
    "v = [r.k for r in conn.rows('update {t} set n = n - 1 where k = :b returning k', b=b)]",
    "if a % 5 == 0: raise ValueError(b)",
]
HEAD = """
from typing import Any
from retroact import now, rng, transaction, uuid


def forgive(work: Any) -> Any:
    try:
        return work()
    except Exception as error:
        return type(error).__name__


@transaction
def create(conn: Any) -> None:
    for sql in {schema!r}:
        conn.execute(sql)
"""
_NAMES = itertools.count(1)

sources = st.builds(
    lambda tables, extras, bodies: _source(tables, extras, bodies),  # noqa: PLW0108 - defined below
    st.tuples(st.sampled_from(TABLES), st.sampled_from(TABLES)),
    st.lists(st.sampled_from(EXTRAS), unique=True),
    st.lists(st.lists(st.tuples(st.sampled_from(LINES), st.sampled_from(["t0", "t1"])), min_size=1, max_size=5), min_size=2, max_size=5),
)


def _source(tables: tuple[str, str], extras: list[str], bodies: list[list[tuple[str, str]]]) -> str:
    schema = [*(text.format(t=f"t{i}") for i, text in enumerate(tables)), "create table log (k, a, b)"]
    # `child` is named by statements, so there is always one.
    child = EXTRAS[0] if EXTRAS[0] in extras else "create table child (p text, what text)"
    text = HEAD.format(schema=[*schema, child, *(extra for extra in extras if extra != EXTRAS[0])])
    for number, lines in enumerate(bodies):
        reads = all("rows('select" in line or "value('select" in line for line, _ in lines)
        text += f"\n\n@transaction{'(read_only=True)' if reads else ''}\ndef f{number}(conn: Any, a: int, b: str) -> Any:\n    v = None\n"
        for line, table in lines:
            text += "    " + line.replace("{t}", table).replace("{o}", "t1" if table == "t0" else "t0") + "\n"
        text += "    return v\n"
    return text


@contextlib.contextmanager
def module_of(folder: Path, source: str) -> Iterator[ModuleType]:
    """The text as a module that Python has imported from a file."""
    name = f"random_app_{next(_NAMES)}"
    path = folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(folder))
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(folder))
        del sys.modules[name]


def live(app: App, module: ModuleType, seed: int, *, callers: int = 8, calls: int = 6) -> None:
    """Several callers at once, each with calls of its own; what a body raises is its outcome."""
    functions = [value for name, value in vars(module).items() if name[0] == "f" and name[1:].isdigit()]

    def call(number: int) -> None:
        source = random.Random(f"{seed}/{number}")
        for _ in range(calls):
            with contextlib.suppress(Exception):
                app.run(source.choice(functions), source.randrange(8), source.choice("abcde"))

    app.run(module.create, run="create")
    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def dump(branch: Any) -> dict[str, list[Any]]:
    """The application's tables: rows in the order in which a scan finds them, with their rowids."""
    tables = branch.query(
        "select name, wr from pragma_table_list where schema = 'main' and type = 'table' and name not like 'retroact\\_%' escape '\\'"
    )[1]
    return {
        name: branch.query(f'select {"" if without else "rowid,"} * from "{name}"')[1]
        for name, without in sorted(tables)
        if name not in ("sqlite_schema", "sqlite_stat1")
    }
