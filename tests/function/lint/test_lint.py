"""What lint finds: for each rule what it is about, what looks like it and is not, through every style of import and through helpers."""

from __future__ import annotations

import ast
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retroact.function.code import Code, Source
from retroact.function.lint.known import NAMES, PREFIXES
from retroact.function.lint.linter import Linter, grave, lint
from retroact.function.lint.rule import RULES, Finding, Severity

HEAD = "from retroact import transaction, step, workflow, invariant\n"


def found(text: str, **helpers: str) -> list[tuple[str, int]]:
    """Rule and line of each finding; line 1 is the first of `text`."""
    return [(f.rule, f.line - 1) for f in findings(text, **helpers) if f.file == "shop.py"]


def findings(text: str, **helpers: str) -> tuple[Finding, ...]:
    sources = [Source("shop", "shop.py", HEAD + text), *(Source(name, f"{name}.py", each) for name, each in helpers.items())]
    return lint((Code("shop", tuple(sorted(sources, key=lambda source: source.name))),))


def body(statement: str, *, top: str = "pass", kind: str = "transaction") -> list[str]:
    """The rules that a body of one statement runs into."""
    given = "conn, item: str, tags: set[str]"
    text = f"{top}\n@{kind}\ndef f({given}):\n    {statement}\n"
    return sorted({rule for rule, _ in found(text)})


@pytest.mark.parametrize(
    ("top", "statement", "rules"),
    [
        # time
        ("import time", "time.time()", ["RT101"]),
        ("import time as t", "t.time_ns()", ["RT101"]),
        ("from time import time as clock", "clock()", ["RT101"]),
        ("from time import *", "time()", ["RT101"]),
        ("import time\nclock = time.time", "clock()", ["RT101"]),
        ("pass", "import time; time.time()", ["RT101"]),
        ("import time", "time.monotonic()", ["RT102"]),
        ("from time import perf_counter_ns", "sorted([], key=perf_counter_ns)", ["RT102"]),
        ("import datetime", "datetime.datetime.now(datetime.UTC)", ["RT101"]),
        ("import datetime", "datetime.datetime.now()", ["RT104"]),
        ("from datetime import datetime as dt", "dt.now().date()", ["RT104"]),
        ("from datetime import datetime", "datetime.utcnow()", ["RT101"]),
        ("from datetime import date", "date.today()", ["RT104"]),
        ("from datetime import datetime", "datetime.fromtimestamp(5)", ["RT104"]),
        ("from datetime import datetime, UTC", "datetime.fromtimestamp(5, UTC)", []),
        ("pass", "item.astimezone()", ["RT104"]),
        ("import locale", "locale.currency(5)", ["RT104"]),
        ("import time", "time.sleep(5)", ["RT109"]),
        ("import time", "time.gmtime(5)", []),
        # chance
        ("import random", "random.random()", ["RT103"]),
        ("from random import choice", "choice(item)", ["RT103"]),
        ("import random", "random.Random(5).random()", []),
        ("import uuid", "uuid.uuid4()", ["RT103"]),
        ("import uuid", "uuid.uuid5(uuid.NAMESPACE_DNS, item)", []),
        ("import secrets", "secrets.token_hex()", ["RT105"]),
        ("from os import urandom", "urandom(5)", ["RT105"]),
        ("import numpy as np", "np.random.rand()", ["RT106"]),
        ("import numpy as np", "np.random.default_rng(5).integers(5)", []),
        ("import os", "os.getpid()", ["RT107"]),
        ("import platform", "platform.node()", ["RT107"]),
        ("import sys", "sys.argv[1]", ["RT107"]),
        ("pass", "id(item)", ["RT108"]),
        ("pass", "hash(item)", ["RT108"]),
        ("pass", "id = item; id.lower()", []),
        # the world
        ("pass", "open(item)", ["RT201"]),
        ("from pathlib import Path", "Path(item).read_text()", ["RT201"]),
        ("import shutil", "shutil.rmtree(item)", ["RT201"]),
        ("import requests", "requests.get(item)", ["RT202"]),
        ("from urllib.request import urlopen", "urlopen(item)", ["RT202"]),
        ("import socket", "socket.socket()", ["RT202"]),
        ("import requests", "try: item.x()\n    except requests.HTTPError: pass", []),
        ("from requests import HTTPError", "raise HTTPError(item)", []),
        ("import subprocess", "subprocess.run([item])", ["RT203"]),
        ("import os", "os.system(item)", ["RT203"]),
        ("from threading import Thread", "Thread(target=item).start()", ["RT204"]),
        ("from concurrent.futures import ThreadPoolExecutor", "ThreadPoolExecutor()", ["RT204"]),
        ("import asyncio", "asyncio.create_task(item)", ["RT205"]),
        ("import sqlite3", "sqlite3.connect(item)", ["RT206"]),
        ("import os", "os.environ['X']", ["RT207"]),
        ("import os", "os.environ.get('X')", ["RT207"]),
        ("from os import environ", "item in environ", ["RT207"]),
        ("import os", "os.getenv('X')", ["RT207"]),
        ("pass", "input()", ["RT208"]),
        ("pass", "print(item)", ["RT209"]),
        # state
        ("CACHE = {}", "CACHE[item] = 1", ["RT301"]),
        ("CACHE = {}", "CACHE.setdefault(item, 1)", ["RT301"]),
        ("N = iter(())", "next(N)", ["RT301"]),
        ("N = 0", "global N; N += 1", ["RT301"]),
        ("class Total:\n    n = 0", "Total.n += 1", ["RT301"]),
        ("CACHE = {}\ndef other():\n    CACHE['a'] = 1", "return CACHE.get(item)", ["RT302"]),
        ("TABLE = {'a': 1}", "return TABLE[item]", []),
        ("TABLE = {}\nTABLE['a'] = 1", "return TABLE[item]", []),
        ("CACHE = {}", "CACHE = {}; CACHE[item] = 1", []),
        ("pass", "found = []; found.append(item)", []),
        # sets
        ("pass", "for tag in tags: pass", ["RT303"]),
        ("pass", "for tag in sorted(tags): pass", []),
        ("pass", "for tag in {'a', item}: pass", ["RT303"]),
        ("pass", "for n in {1, 2, 3}: pass", []),
        ("pass", "return list(tags)", ["RT303"]),
        ("pass", "return ', '.join(tags)", ["RT303"]),
        ("pass", "return [t for t in tags | {item}]", ["RT303"]),
        ("pass", "return sum(1 for t in tags)", []),
        ("pass", "return {t for t in tags}", []),
        ("pass", "return max(tags), len(tags), item in tags", []),
        ("pass", "seen = set(); seen.add(item); return [*seen]", ["RT303"]),
        ("pass", "return tags.pop()", ["RT303"]),
        ("pass", "for k in item.keys() & tags: pass", ["RT303"]),
        ("pass", "tags = sorted(tags)\n    for t in tags: pass", []),
        ("NAMES = {'a', 'b'}", "return [n for n in NAMES]", ["RT303"]),
        # the connection
        ("pass", "return conn", ["RT304"]),
        ("class Kept: pass", "Kept.conn = conn", ["RT301", "RT304"]),
        ("KEPT = []", "KEPT.append(conn)", ["RT301", "RT304"]),
        ("pass", "return conn.value('select 1')", []),
        # SQL
        ("pass", "conn.execute(f'insert into t values ({item})')", ["RT401"]),
        ("pass", "conn.execute('insert into t values (%s)' % item)", ["RT401"]),
        ("pass", "conn.execute('insert into t values ({})'.format(item))", ["RT401"]),
        ("pass", "conn.execute('insert into t values (' + item + ')')", ["RT401"]),
        ("pass", "text = f'delete from {item}'\n    conn.execute(text)", ["RT401"]),
        ("COLUMN = 'n'", "conn.execute(f'insert into t ({COLUMN}) values (1)')", []),
        ("COLUMN = 'n'", "conn.execute('select ' + COLUMN + ' from t')", []),
        ("pass", "conn.execute('insert into t values (:item)', item=f'x{item}')", []),
        ("pass", "conn.execute('insert into t values (random())')", ["RT402"]),
        ("pass", "conn.execute(\"insert into t values (datetime('now'))\")", ["RT402"]),
        ("pass", "conn.execute('insert into t values (CURRENT_TIMESTAMP)')", ["RT402"]),
        ("pass", "conn.value(\"select datetime('now', 'localtime')\")", ["RT104", "RT402"]),
        ("pass", "conn.execute('select randomly from t')", []),
        ("pass", "for row in conn.rows('select a from t'): pass", ["RT403"]),
        ("pass", "for row in conn.rows('select a from t order by a'): pass", []),
        ("pass", "return sum(row.a for row in conn.rows('select a from t'))", []),
        ("pass", "rows = conn.rows('select a from t')\n    return rows", ["RT403"]),
        ("pass", "return conn.rows('select count(*) from t')", []),
    ],
)
def test_what_a_statement_is_found_to_be(top: str, statement: str, rules: list[str]) -> None:
    assert body(statement, top=top) == rules


@pytest.mark.parametrize(
    ("decorated", "seen"),
    [
        ("@transaction\ndef f(conn): open('x')", True),
        ("@transaction(read_only=True)\ndef f(conn): open('x')", True),
        ("@invariant\ndef f(conn): open('x')", True),
        ("@workflow\ndef f(): open('x')", True),
        ("@workflow\nasync def f(): open('x')", True),
        ("@step\ndef f(): open('x')", False),
        ("@step(retries=3)\ndef f(): open('x')", False),
        ("def f(): open('x')", False),
        ("import retroact\n@retroact.transaction\ndef f(conn): open('x')", True),
        ("import retroact as r\n@r.workflow(name='g')\ndef f(): open('x')", True),
        ("from retroact import transaction as tx\n@tx\ndef f(conn): open('x')", True),
        ("from retroact.function.declare import transaction as tx\n@tx\ndef f(conn): open('x')", True),
        ("from elsewhere import transaction\n@transaction\ndef f(conn): open('x')", False),
        ("@transaction\ndef g(conn): pass\n@g.compensation\ndef f(conn): open('x')", True),
        ("@step\ndef g(): pass\n@g.compensation\ndef f(): open('x')", False),
        ("@step\ndef g(): pass\n@g.inquiry\ndef f(key): open('x')", False),
        ("def _f(conn): open('x')\nf = transaction(_f)", True),
        ("def made():\n    @transaction\n    def f(conn): open('x')\n    return f", True),
        ("if True:\n    @transaction\n    def f(conn): open('x')", True),
    ],
)
def test_which_functions_are_read(decorated: str, seen: bool) -> None:
    assert bool(found(decorated + "\n")) is seen


def test_helpers_are_followed_through_modules() -> None:
    text = "import helpers\nfrom helpers import deep as d, Box\n@transaction\ndef f(conn):\n    helpers.shallow()\n    d()\n    Box()\n"
    helpers = (
        "import time\nfrom lower import lowest\ndef shallow():\n    return time.monotonic()\ndef deep():\n    lowest()\n"
        "class Box:\n    def __init__(self):\n        self.pid = __import__('os')\n        open('x')\ndef never():\n    open('y')\n"
    )
    lower = "def lowest():\n    input()\n    return lowest()\n"
    where = [(f.file, f.line, f.rule, f.function) for f in findings(text, helpers=helpers, lower=lower)]
    assert where == [("helpers.py", 4, "RT102", "f"), ("helpers.py", 10, "RT201", "f"), ("lower.py", 2, "RT208", "f")]


def test_decorators_and_names_that_a_project_hands_on() -> None:
    text = "from base import tx, clock\n@tx\ndef f(conn):\n    clock()\n"
    assert found(text, base="from retroact import transaction as tx\nfrom time import monotonic as clock\n") == [("RT102", 4)]


def test_what_the_platform_calls_is_a_beginning_of_its_own() -> None:
    text = "@step\ndef s():\n    open('x')\n@transaction\ndef t(conn):\n    input()\n@workflow\ndef w():\n    s()\n    t()\n"
    (finding,) = findings(text)
    assert (finding.rule, finding.function) == ("RT208", "t")


def test_state_of_another_module() -> None:
    text = "from state import CACHE\nimport state\n@transaction\ndef f(conn):\n    CACHE['a'] = 1\n"
    assert found(text, state="CACHE = {}\n") == [("RT301", 5)]


def test_annotations_and_decorators_are_not_run() -> None:
    assert (
        found("import requests, random\n@transaction\ndef f(conn, r: requests.Response) -> random.Random:\n    x: requests.Session\n") == []
    )


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("@transaction\ndef f(conn):\n    open('x')  # retroact: allow RT201 it is a constant\n", []),
        ("@transaction\ndef f(conn):\n    # retroact: allow RT201 it is a constant\n\n    # and more\n    open('x')\n", []),
        ("@transaction\ndef f(conn):  # retroact: allow RT201, RT208 a tool for one person\n    open('x')\n    input()\n", []),
        ("# retroact: allow RT201 a tool\n@transaction\ndef f(conn):\n    open('x')\n", []),
        ("@transaction\ndef f(conn):\n    open('x')  # retroact: allow RT202 wrong\n", ["RT001", "RT201"]),
        ("@transaction\ndef f(conn):\n    open('x')  # retroact: allow RT201\n", ["RT001"]),
        ("@transaction\ndef f(conn):\n    pass  # retroact: allow RT201 nothing here\n", ["RT001"]),
        ("@transaction\ndef f(conn):\n    pass  # retroact: allow RT999 no such rule\n", ["RT001"]),
        ("@transaction\ndef f(conn):\n    pass  # retroact: allow everything\n", ["RT001"]),
    ],
)
def test_findings_are_allowed_by_comments(text: str, rules: list[str]) -> None:
    assert [finding.rule for finding in findings(text)] == rules


def test_what_cannot_be_read_is_told() -> None:
    (finding,) = findings("def f(:\n")
    assert (finding.rule, finding.file, finding.line) == ("RT002", "shop.py", 2)
    assert found("import broken\n@transaction\ndef f(conn):\n    open('x')\n", broken="def f(:\n") == [("RT201", 4)]


def test_a_place_is_where_an_editor_finds_it() -> None:
    (finding,) = findings("@transaction\ndef f(conn):\n    x = 'ü'; y = [open('x')]\n")
    assert "    x = 'ü'; y = [open('x')]"[finding.column - 1 : finding.end - 1] == "open"


def test_every_rule_is_found_by_some_test_and_says_what_to_do() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    for rule in RULES.values():
        assert rule.id in text, rule
        assert rule.remedy.endswith((".", ")", "it")), rule
        assert rule.message.count("{name}") == 1, rule
    assert set(NAMES.values()) | {rule for _, rule in PREFIXES} <= RULES.keys()
    assert {rule.severity for rule in RULES.values()} == set(Severity)


LIBRARY = sorted(Path(sysconfig.get_path("stdlib")).glob("[a-e]*.py"))


@pytest.mark.parametrize("path", LIBRARY[::6], ids=lambda path: path.stem)
def test_any_code_can_be_read(path: Path) -> None:
    """Every function of the standard library, read as if it were a transaction."""
    source = Source(path.stem, path.name, path.read_text(encoding="utf-8"))
    linter = Linter({path.stem: source}.get)
    module = linter._module(path.stem)
    assert module is not None
    from retroact.function.lint.body import read
    from retroact.function.lint.names import Place

    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for hit in read(Place(module, node), "self").hits:
                assert hit.rule in RULES


@given(
    st.lists(
        st.sampled_from(
            ["import time", "x = time", "def x(): x()", "class x: pass", "from x import x", "from . import x", "x.x = x", "del x"]
        )
    )
)
@settings(max_examples=60, deadline=None)
def test_names_that_lead_in_circles_come_to_an_end(lines: list[str]) -> None:
    text = "\n".join([*lines, "from x import y", "@transaction", "def f(conn):", "    x.x(); y(); time()"])
    findings(text, x="from shop import x, y\nfrom y import *\n", y="from x import *\n")


def test_notes_are_not_grave() -> None:
    note, warning = sorted(findings("import time\n@transaction\ndef f(conn):\n    time.time()\n    time.monotonic()\n"))
    assert (grave(note), grave(warning)) == (False, True)


def test_the_documentation_has_every_rule() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "determinism.md").read_text(encoding="utf-8")
    for rule in RULES.values():
        assert f"| {rule.id} | {rule.severity.value} |" in page, rule.id
