"""A project with a past, and the command line in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from retroact.app import App
from retroact.cli import main
from retroact.engine.contract import RunStart
from retroact.function.code import load_path
from retroact.trace.record import RunId

SHOP = """
import itertools
import time

from retroact import invariant, step, transaction, workflow

_NUMBERS = itertools.count()


class OutOfStock(Exception):
    pass


@transaction
def setup(conn) -> None:
    conn.execute("create table inventory (item text primary key, available integer not null)")
    conn.execute("insert into inventory values ('apple', 2)")


@transaction
def check(conn, item: str) -> bool:
    return conn.value("select available from inventory where item = :item", item=item) > 0


@transaction
def update(conn, item: str) -> None:
    print("a body that prints")
    conn.execute("update inventory set available = available - 1 where item = :item", item=item)


@transaction
def chance(conn) -> None:
    conn.execute("update inventory set available = available + :n", n=next(_NUMBERS))


@transaction
def wrong(conn) -> None:
    conn.execute("select * from nowhere")


@step
def charge(cents: int) -> str:
    if cents < 0:
        raise ValueError("negative")
    return "paid"


@workflow
def checkout(item: str, cents: int = 5) -> str:
    if not check(item):
        raise OutOfStock(item)
    update(item)
    return charge(cents)


@workflow
def twice(item: str) -> list[str]:
    return [checkout(item), checkout(item)]


@invariant
def never_oversold(conn) -> bool:
    return conn.value("select min(available) from inventory") >= 0
"""
FIXED = (
    SHOP.replace("if not check(item):\n        raise OutOfStock(item)\n    update(item)", "reserve(item)")
    + """

@transaction
def reserve(conn, item: str) -> None:
    if conn.value("select available from inventory where item = :item", item=item) < 1:
        raise OutOfStock(item)
    conn.execute("update inventory set available = available - 1 where item = :item", item=item)
"""
)


@dataclass(frozen=True)
class Answer:
    """What a command line answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Retroact = Callable[..., Answer]


@pytest.fixture(scope="session")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that oversold an apple, failed, diverges, and has a run that was interrupted. Not to be changed."""
    folder = tmp_path_factory.mktemp("past")
    (folder / "shop.py").write_text(SHOP)
    (folder / "fixed.py").write_text(FIXED)
    (folder / "retroact.toml").write_text('code = "shop.py"\ndatabase = "shop.db"\n')
    shop = load_path(folder / "shop.py")
    with App(folder / "shop.db", shop) as app:
        app.run("setup", run="opening")
        app.run("checkout", "apple", run="one")
        app.run("check", "apple", run="saw-one")
        app.run("chance", run="nothing")
        app.run("update", "apple", run="last")
        app.run("update", "apple", run="oversold")
        app.run("chance", run="chance")
        with pytest.raises(ValueError, match="negative"):
            app.run("charge", -1, run="declined")
        start = RunStart(
            run=RunId("asleep"), function=app.registry.get("checkout"), arguments=b'{"item":"apple"}', began_us=app.runs()[0].began_us
        )
        app.engine.begin_run(start)
    return folder


@pytest.fixture
def project(past: Path, tmp_path: Path) -> Path:
    """A copy of that project, to be changed."""
    return Path(shutil.copytree(past, tmp_path / "project"))


@pytest.fixture
def retroact(past: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Retroact:
    """Run a command line in the folder `at` (default: the project that is not to be changed)."""

    def call(*words: str, at: Path = past) -> Answer:
        monkeypatch.chdir(at)
        monkeypatch.delenv("RETROACT_DEBUG", raising=False)
        monkeypatch.delenv("COLUMNS", raising=False)
        capfd.readouterr()
        code = main(list(words))
        found = capfd.readouterr()
        return Answer(code, found.out, found.err)

    return call
