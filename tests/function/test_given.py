# ruff: noqa: TID251, DTZ005, DTZ011 - what is tested is that these very calls are given what is recorded
"""A body is given the recorded time and the invocation's chance by the standard modules too, however it imports them; nobody else is."""

from __future__ import annotations

import contextlib
import copy
import datetime
import os
import random
import secrets
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given as generated
from hypothesis import settings
from hypothesis import strategies as st

from retroact import App, now, rng, step, transaction, workflow
from retroact.engine.clock import SystemClock
from retroact.function.code import load_path, unload
from retroact.function.context import enter, leave
from retroact.function.given import given
from retroact.testing import ManualClock

#: An expression, and the import styles that its names can come from: each a line, and the expression in its words.
SOURCES: dict[str, list[tuple[str, str]]] = {
    "time": [
        ("import time", "time.time()"),
        ("import time as clock", "clock.time()"),
        ("from time import time", "time()"),
        ("from time import time as t", "t()"),
        ("from time import *", "time()"),
        ("import time\nnow = time.time", "now()"),
    ],
    "time_ns": [("import time", "time.time_ns()"), ("from time import time_ns", "time_ns()")],
    "calendar": [
        ("import time", "list(time.gmtime())"),
        ("from time import localtime", "list(localtime())"),
        ("import time", "time.strftime('%Y-%m-%dT%H:%M:%S')"),
        ("import time", "time.ctime() + time.asctime()"),
    ],
    "datetime": [
        ("import datetime", "datetime.datetime.now().isoformat()"),
        ("import datetime as d", "d.datetime.now(d.UTC).isoformat()"),
        ("from datetime import datetime", "datetime.now().isoformat()"),
        ("from datetime import datetime as dt", "dt.utcnow().isoformat()"),
        ("from datetime import datetime", "datetime.today().isoformat()"),
        ("from datetime import datetime\nnow = datetime.now", "now().isoformat()"),
        ("from datetime import datetime\nclass Own(datetime): pass", "Own.now().isoformat()"),
    ],
    "date": [("import datetime", "datetime.date.today().isoformat()"), ("from datetime import date", "date.today().isoformat()")],
    "random": [
        ("import random", "random.random()"),
        ("from random import randint", "randint(1, 10**9)"),
        ("from random import choice as pick", "[pick(range(1000)) for _ in range(5)]"),
        ("import random", "random.sample(range(1000), 5) + [random.gauss(0, 1), random.getrandbits(70)]"),
        ("from random import shuffle", "(lambda l: (shuffle(l), l)[1])(list(range(50)))"),
        ("from random import Random", "Random().random()"),
        ("from random import SystemRandom", "SystemRandom().random()"),
        ("import random", "(random.seed(), random.random())[1]"),
    ],
    "uuid": [
        ("import uuid", "str(uuid.uuid4())"),
        ("from uuid import uuid4", "str(uuid4())"),
        ("import uuid", "str(uuid.uuid1())"),
        ("from uuid import uuid1 as u", "str(u())"),
        (
            "import uuid, dataclasses\n@dataclasses.dataclass\nclass D:\n    id: uuid.UUID = dataclasses.field(default_factory=uuid.uuid4)",
            "str(D().id)",
        ),
    ],
    "secrets": [
        ("import secrets", "secrets.token_hex()"),
        ("from secrets import token_urlsafe, token_bytes", "token_urlsafe() + token_bytes(8).hex()"),
        ("from secrets import choice, randbelow", "choice(range(1000)) + randbelow(10**6)"),
    ],
    "urandom": [("import os", "os.urandom(16).hex()"), ("from os import urandom", "urandom(16).hex()")],
}
STYLES = [style for styles in SOURCES.values() for style in styles]

PROGRAM = """
from retroact import step, transaction, workflow
{imports}

@transaction
def create(conn) -> None:
    conn.execute("create table if not exists found (value text)")

@transaction
def body(conn) -> str:
    {inner}
    value = repr({expression})
    conn.execute("insert into found values (:value)", value=value)
    return value

@workflow
def flow() -> str:
    {inner}
    return repr({expression}) + body()

@step
def outside() -> str:
    {inner}
    return repr({expression})
"""


def program(style: tuple[str, str], *, inside: bool) -> str:
    """A module that imports at its top, or inside its functions."""
    imports, expression = style
    simple = "\n" not in imports and "*" not in imports
    inner = imports if inside and simple else "pass"
    return PROGRAM.format(imports="" if inside and simple else imports, inner=inner, expression=expression)


@contextlib.contextmanager
def loaded(folder: Path, text: str) -> Iterator[ModuleType]:
    path = folder / "program.py"
    path.write_text(text)
    module = load_path(path)
    try:
        yield module
    finally:
        unload(module)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("style", STYLES, ids=[" ".join(style).replace("\n", " ") for style in STYLES])
def test_the_same_again_in_every_style(tmp_path: Path, style: tuple[str, str], inside: bool) -> None:
    with loaded(tmp_path, program(style, inside=inside)) as module, App(tmp_path / "test.db", module, clock=ManualClock()) as app:
        app.run("create")
        runs = [f"{name}-{n}" for n in range(2) for name in ("body", "flow")]
        for run in runs:
            app.run(run.partition("-")[0], run=run)
        report = app.replay(runs)
        assert report.faithful
        assert [t.verdict.value for t in report.transactions] == ["identical"] * 4


@pytest.mark.parametrize("source", ["random", "uuid", "secrets", "urandom"])
def test_a_step_has_the_chance_of_the_world(tmp_path: Path, source: str) -> None:
    text = program(SOURCES[source][0], inside=False)
    with loaded(tmp_path, text) as module, App(tmp_path / "1.db", module) as one, App(tmp_path / "2.db", module) as two:
        one.run("create")
        two.run("create")
        assert one.run("outside", run="same") != two.run("outside", run="same")
        assert one.run("body", run="same-body") == two.run("body", run="same-body")


@transaction
def moment(conn: Any) -> list[float]:
    return [time.time(), now().timestamp(), datetime.datetime.now(datetime.UTC).timestamp(), datetime.datetime.now().timestamp()]


def test_there_is_one_time_in_a_transaction(tmp_path: Path) -> None:
    with App(tmp_path / "test.db", moment, clock=ManualClock()) as app:
        found = app.run(moment)
        assert set(found) == {app.runs()[0].began_us / 1e6}


@step
def real() -> list[float]:
    return [time.time(), datetime.datetime.now().timestamp()]


def test_a_step_and_the_platform_have_the_real_time(tmp_path: Path) -> None:
    with App(tmp_path / "test.db", real, clock=ManualClock()) as app:
        before = time.time()
        assert all(before - 1 < found < before + 60 for found in app.run(real))


@workflow
def flow() -> list[float]:
    first = time.time()
    moment()
    return [first, time.time()]


def test_in_a_workflow_time_moves_on_with_its_calls(tmp_path: Path) -> None:
    with App(tmp_path / "test.db", [flow, moment]) as app:  # on the machine's own clock
        first, then = app.run(flow, run="one")
        assert then > first
        assert app.replay(["one"]).faithful


def test_another_thread_has_what_it_had(tmp_path: Path) -> None:
    entered, ask = threading.Event(), threading.Event()
    found: list[float] = []

    def other() -> None:
        entered.wait(10)
        found.append(time.time())
        ask.set()

    @transaction
    def waits(conn: Any) -> float:
        entered.set()
        ask.wait(10)
        return time.time()

    thread = threading.Thread(target=other)
    thread.start()
    with App(tmp_path / "test.db", waits, clock=ManualClock()) as app:
        recorded = app.run(waits)
    thread.join()
    assert abs(found[0] - SystemClock().now_us() / 1e6) < 60
    assert abs(recorded - found[0]) > 1000


class FixedScope:
    """A scope with a moment and a seed, for the substitutes alone."""

    def __init__(self, now_us: int, seed: int, function: Any) -> None:
        self.function = function
        self._now_us = now_us
        self._random = random.Random(seed)

    def now_us(self) -> int:
        return self._now_us

    def random(self) -> random.Random:
        return self._random


def drawn() -> list[Any]:
    local = datetime.datetime.now()
    numbers = [random.random(), random.randint(1, 99), random.choice("abc"), secrets.token_hex(4), os.urandom(3), random.Random().random()]
    ids = [uuid.uuid4(), uuid.uuid1(), uuid.uuid1(clock_seq=7), uuid.uuid1(node=5)]
    return [time.time(), time.time_ns(), local, datetime.datetime.now(datetime.UTC), datetime.date.today(), *numbers, *ids]


@generated(now_us=st.integers(0, 4 * 10**15), seed=st.integers())
@settings(max_examples=50, deadline=None)
def test_the_same_moment_and_seed_give_the_same(now_us: int, seed: int) -> None:
    given.install()
    found: list[list[Any]] = []
    for _ in range(2):
        token = enter(FixedScope(now_us, seed, moment))  # pyright: ignore[reportArgumentType]
        try:
            found.append(drawn())
        finally:
            leave(token)
    assert found[0] == found[1]
    assert found[0][3] == datetime.datetime.fromtimestamp(now_us / 1e6, datetime.UTC)
    assert found[0][11].version == 4
    assert [each.version for each in found[0][12:]] == [1, 1, 1]
    assert found[0][13].clock_seq == 7
    assert found[0][14].node == 5


def test_classes_stay_what_they_are() -> None:
    given.install()
    moment = datetime.datetime.now()
    assert type(moment) is datetime.datetime
    assert isinstance(moment, datetime.date)
    assert copy.copy(moment) == moment
    assert datetime.datetime.now.__name__ == "now"


def test_everything_can_be_taken_back() -> None:
    module = ModuleType("copies")
    vars(module).update(time=time.time)
    given.install()
    substitute = time.time
    given.adopt([module])
    given.restore()
    try:
        assert time.time is not substitute
        assert type(vars(datetime.datetime)["now"]).__name__ == "classmethod_descriptor"
        assert "seed" in vars(random.Random)
        assert not hasattr(random.Random.seed, "__wrapped__")
        assert sys.modules["os"].urandom.__module__ == "posix"
    finally:
        given.install()


def test_rng_and_random_draw_from_one_stream(tmp_path: Path) -> None:
    @transaction
    def both(conn: Any) -> bool:
        state = rng().getstate()
        one = random.random()
        rng().setstate(state)
        return one == rng().random()

    with App(tmp_path / "test.db", both) as app:
        assert app.run(both)


@workflow
async def waiting() -> list[Any]:
    before = [time.time(), random.random(), str(uuid.uuid4()), datetime.datetime.now(datetime.UTC).isoformat()]
    await moment()  # pyright: ignore[reportGeneralTypeIssues]
    return [*before, time.time(), random.random()]


def test_an_async_workflow_is_given_the_same(tmp_path: Path) -> None:
    with App(tmp_path / "test.db", [waiting, moment]) as app:
        app.run(waiting, run="one")
        report = app.replay(["one"])
        assert report.faithful, report
        assert len(report.workflows) == 1


def test_an_interrupted_workflow_goes_on_with_the_same(tmp_path: Path) -> None:
    """The body is run again from its beginning; what it drew then it draws again, or the arguments of its calls would differ."""
    drawn: list[float] = []

    @step
    def tell(number: float, at: float) -> None:
        drawn.append(number)
        if len(drawn) == 1:
            raise KeyboardInterrupt

    @workflow
    def telling() -> float:
        number, at = random.random(), time.time()
        moment()
        tell(number, at)
        return number

    with App(tmp_path / "test.db", [telling, tell, moment]) as app, pytest.raises(KeyboardInterrupt):
        app.run(telling, run="one")
    with App(tmp_path / "test.db", [telling, tell, moment]) as app:
        assert app.recovered[0].result() == drawn[0] == drawn[1]


SIMPLE = [style for style in STYLES if "\n" not in style[0] and "*" not in style[0]]


@generated(calls=st.lists(st.tuples(st.sampled_from(SIMPLE), st.booleans()), min_size=1, max_size=12))
@settings(max_examples=15, deadline=None)
def test_any_mixture_is_the_same_again(tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[tuple[str, str], bool]]) -> None:
    """A workflow and a transaction that draw through whatever they like, in whatever order."""
    helpers = "".join(f"def h{n}():\n    {imports}\n    return repr({expression})\n" for n, ((imports, expression), _) in enumerate(calls))
    inner = ", ".join(f"h{n}()" for n, (_, inside) in enumerate(calls) if inside)
    outer = ", ".join(f"h{n}()" for n, (_, inside) in enumerate(calls) if not inside)
    text = f"""
from retroact import transaction, workflow
{helpers}
@transaction
def create(conn) -> None:
    conn.execute("create table found (value text, luck integer default (random()), at text default (datetime('now', 'subsec')))")

@transaction
def body(conn, given: str) -> str:
    conn.execute("insert into found (value) values (:value)", value=given + repr([{inner}]))
    return repr([{inner}]) + str(conn.value("select random()"))

@workflow
def flow() -> str:
    return body(repr([{outer}])) + body(repr([{outer}]))
"""
    with loaded(tmp_path_factory.mktemp("mixed"), text) as module, App(tmp_path_factory.mktemp("mixed") / "test.db", module) as app:
        app.run("create")
        app.run("flow", run="one")
        report = app.replay(["one"])
        assert report.faithful, report
        assert [t.verdict.value for t in report.transactions] == ["identical"] * 2


def test_changed_code_is_given_the_same(tmp_path: Path) -> None:
    text = program(("from time import time", "time()"), inside=False)
    with loaded(tmp_path, text) as module, App(tmp_path / "test.db", module, clock=ManualClock()) as app:
        app.run("create")
        app.run("flow", run="one")
        changed = tmp_path / "changed.py"
        changed.write_text(text + "\n# changed\n")
        difference = app.retroact(["one"], changed)
        assert difference.clean
        assert not difference.rows
        assert not any(run.differs for run in difference.runs)
