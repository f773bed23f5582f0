"""Applications made up by chance, and changes to them: functions with other lines, workflows with other calls.

The grammar of the functions is that of the replay tests (`tests/replay/random_app.py`), with statements added that reach single rows,
so that there is something to tell apart.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import random
import threading
from pathlib import Path
from typing import Any

from tests.replay.random_app import EXTRAS, HEAD, LINES, TABLES

from retroact import App
from retroact.function.code import load_path

POINTS = [
    "v = conn.value('select n from {t} where k = :b', b=b)",
    "v = conn.value('select n from {t} where id = :a', a=a)",
    "v = conn.execute('update {t} set n = n + 1 where id = :a', a=a)",
    "v = conn.execute('update {t} set n = :a where k = :b', a=a, b=b)",
    "v = conn.execute('delete from {t} where id = :a', a=a)",
    "v = conn.execute('insert into plain (id, n) values (:a, :a) on conflict (id) do update set n = n + 1', a=a + len(b))",
    "v = conn.value('select n from plain where id = :a', a=a)",
    "a = (conn.value('select n from plain where id = :a', a=a + ord(b)) or 0) % 9",
    "v = conn.execute('update plain set n = n * 2 + :a where id = :i', a=a, i=ord(b))",
    "v = conn.execute('update plain set n = n + 1 where id = :i', i=ord(b) + a)",
    "v = conn.execute('insert into plain (n) values (:a)', a=a)",
    "v = conn.execute('insert or ignore into pairs values (:b, :a, 0)', a=a, b=b)",
    "v = conn.execute('update pairs set n = n + :a where x = :b and y = :a', a=a, b=b)",
    "v = [r.n for r in conn.rows('select n from pairs where x = :b', b=b)]",
    "if (conn.value('select n from plain where id = :i', i=ord(b)) or 0) > 40: raise ValueError(b)",
]
EVER = [
    "create table plain (id integer primary key, n integer default 0)",
    "create table pairs (x text, y integer, n integer, primary key (x, y)) without rowid",
    *(f"insert into plain values ({ord(letter)} + {number}, {number})" for letter in "abcde" for number in (0, 9, 18)),
]
INVARIANTS = [
    "conn.value('select count(*) from plain where n > 30') < 3",
    "(conn.value('select n from plain where id = 97') or 0) < 6",
    "conn.value('select count(*) from t1') % 5 != 4",
]
Body = list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Program:
    """An application: its tables, its functions and its workflows."""

    schema: tuple[str, ...]
    bodies: tuple[Body, ...]
    #: Of each workflow its calls, by number of the function.
    flows: tuple[tuple[int, ...], ...]
    invariants: tuple[str, ...]

    def text(self) -> str:
        """The module."""
        text = HEAD.format(schema=[*EVER, *self.schema]).replace(
            "from retroact import now", "from retroact import invariant, workflow, now"
        )
        for number, lines in enumerate(self.bodies):
            reads = all("rows('select" in line or "value('select" in line for line, _ in lines)
            text += (
                f"\n\n@transaction{'(read_only=True)' if reads else ''}\ndef f{number}(conn: Any, a: int, b: str) -> Any:\n    v = None\n"
            )
            for line, table in lines:
                text += "    " + line.replace("{t}", table).replace("{o}", "t1" if table == "t0" else "t0") + "\n"
            text += "    return v\n"
        for number, calls in enumerate(self.flows):
            text += f"\n\n@workflow\ndef w{number}(a: int, b: str) -> Any:\n    v = None\n"
            text += "".join(f"    v = forgive(lambda: f{call}(a + {at}, b))\n" for at, call in enumerate(calls))
            text += "    return v\n"
        for number, question in enumerate(self.invariants):
            text += f"\n\n@invariant\ndef holds{number}(conn: Any) -> bool:\n    return {question}\n"
        return text


def program(chance: random.Random) -> Program:
    """Any application."""
    tables = [text.format(t=f"t{i}") for i, text in enumerate(chance.choices(TABLES, k=2))]
    extras = [extra for extra in EXTRAS[1:] if chance.random() < 0.2]
    child = EXTRAS[0] if chance.random() < 0.3 else "create table child (p text, what text)"
    bodies = tuple(body(chance) for _ in range(chance.randint(3, 6)))
    flows = tuple(tuple(chance.choices(range(len(bodies)), k=chance.randint(1, 3))) for _ in range(chance.randint(0, 2)))
    invariants = tuple(question for question in INVARIANTS if chance.random() < 0.4)
    return Program((*tables, "create table log (k, a, b)", child, *extras), bodies, flows, invariants)


def body(chance: random.Random) -> Body:
    """Any body: most have few lines, and most lines reach one row."""
    return [line(chance) for _ in range(chance.choice((1, 1, 2, 2, 3, 4)))]


def line(chance: random.Random) -> tuple[str, str]:
    """Any line, on any table."""
    return chance.choice(POINTS if chance.random() < 0.75 else LINES), chance.choice(("t0", "t1"))


def changed(before: Program, chance: random.Random) -> Program:
    """The same application with one function changed, now and then two, or a workflow."""
    bodies = list(before.bodies)
    flows = list(before.flows)
    for _ in range(chance.choice((1, 1, 1, 2))):
        number = chance.randrange(len(bodies))
        if flows and chance.random() < 0.25:
            at = chance.randrange(len(flows))
            calls = list(flows[at])
            calls.insert(chance.randint(0, len(calls)), number)
            flows[at] = tuple(calls if chance.random() < 0.5 else calls[1:] or calls)
            continue
        lines = list(bodies[number])
        match chance.randrange(3):
            case 0:
                lines.insert(chance.randint(0, len(lines)), line(chance))
            case 1 if len(lines) > 1:
                lines.pop(chance.randrange(len(lines)))
            case _:
                lines[chance.randrange(len(lines))] = line(chance)
        bodies[number] = lines
    return dataclasses.replace(before, bodies=tuple(bodies), flows=tuple(flows))


def live(app: App, chance: random.Random, *, callers: int = 4, calls: int = 10) -> None:
    """Several callers at once; the functions are called unevenly, as they are in life."""
    functions = [f for f in app.registry if f.name[0] in "fw" and f.name[1:].isdigit()]
    weights = [1 / (1 + number) for number in range(len(functions))]
    seeds = [chance.randrange(2**32) for _ in range(callers)]

    def call(seed: int) -> None:
        source = random.Random(seed)
        for _ in range(calls):
            with contextlib.suppress(Exception):
                app.run(source.choices(functions, weights)[0], source.randrange(8), source.choice("abcde"))

    app.run("create", run="create")
    threads = [threading.Thread(target=call, args=(seed,)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


_NUMBERS = itertools.count(1)


def written(folder: Path, program: Program) -> Path:
    """The text as a file."""
    folder.mkdir(exist_ok=True)
    path = folder / "made_up.py"
    path.write_text(program.text())
    return path


def loaded(path: Path) -> Any:
    """The file as a module."""
    return load_path(path)
