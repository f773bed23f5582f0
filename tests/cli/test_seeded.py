"""A function that goes through a set of strings does the same again in a fresh process, since the hash seed is recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.cli.conftest import Retroact

from retroact.app import App
from retroact.function.code import load_path
from retroact.replay.suspicion import suspicion
from retroact.trace.record import Hashing, RunId

BAG = """
from retroact import transaction, workflow

WORDS = {f"word {n}" for n in range(40)}


@transaction
def setup(conn) -> None:
    conn.execute("create table bag (word text)")


@transaction
def pour(conn) -> None:
    for word in WORDS:
        conn.execute("insert into bag values (:word)", word=word)


@transaction
def put(conn, word: str) -> None:
    conn.execute("insert into bag values (:word)", word=word)


@workflow
def one_by_one() -> str:
    for word in {"ant", "bee", "cat", "dog", "eel", "fox"}:
        put(word)
    return ", ".join({"ant", "bee", "cat", "dog", "eel", "fox"})
"""


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    (tmp_path / "bag.py").write_text(BAG)
    (tmp_path / "retroact.toml").write_text('code = "bag.py"\ndatabase = "bag.db"\n')
    return tmp_path


def process(folder: Path, *words: str, seed: str | None = None) -> subprocess.CompletedProcess[str]:
    """A command line in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    if seed is not None:
        environment["PYTHONHASHSEED"] = seed
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)  # noqa: PTH100
    command = [sys.executable, "-m", "retroact.cli", *words]
    return subprocess.run(command, cwd=folder, env={**environment, "PYTHONPATH": path}, capture_output=True, text=True, check=False)


def edit(path: Path, script: str) -> None:
    database = apsw.Connection(str(path))
    database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    database.execute(script)
    database.close()


def replayed(folder: Path, *words: str, seed: str | None = None) -> Any:
    return json.loads(process(folder, "replay", *words, "--json", seed=seed).stdout)


def test_each_run_is_replayed_under_its_own_seed(bag: Path) -> None:
    assert process(bag, "run", "setup").returncode == 0
    for seed in ("1", "2", None):
        assert process(bag, "run", "pour", "--run", f"pour-{seed}", seed=seed).returncode == 0
        assert process(bag, "run", "one_by_one", "--run", f"flow-{seed}", seed=seed).returncode == 0
    answer = replayed(bag, "--all", seed="3")
    assert answer["faithful"], answer
    assert answer["verdicts"]["identical"] == 1 + 3 * 7
    assert [workflow["verdict"] for workflow in answer["workflows"]] == ["identical"] * 3
    assert answer["answered"] == 0
    shown = process(bag, "replay", "--all")
    assert shown.returncode == 0, shown.stderr
    assert "22 identical" in shown.stdout


def test_a_portable_trace_has_the_seeds(bag: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert process(bag, "run", "setup").returncode == 0
    for run in ("one", "two"):
        assert process(bag, "run", "pour", "--run", run).returncode == 0
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    done = process(bag, "export", "one", "two", "-o", str(elsewhere / "bag.retro"))
    assert done.returncode == 0, done.stdout + done.stderr
    answer = replayed(elsewhere, "bag.retro", "one", "two", seed="3")
    assert answer["verdicts"]["identical"] == 2, answer


def test_the_seed_of_the_command_line_is_recorded(bag: Path) -> None:
    process(bag, "run", "setup")
    process(bag, "run", "setup", seed="7")
    rows = apsw.Connection(str(bag / "bag.db")).execute("select since, hash_seed from retroact_process order by since").fetchall()
    assert [row[0] for row in rows] == [1, 2]
    assert rows[0][1].isdigit()
    assert rows[1][1] == "7"


def test_changed_code_runs_under_the_recorded_seed(bag: Path) -> None:
    process(bag, "run", "setup", seed="5")
    process(bag, "run", "one_by_one", "--run", "flow", seed="5")
    (bag / "changed.py").write_text(BAG.replace("insert into bag values (:word)", "insert into bag values (lower(:word))"))
    answer = process(bag, "retro", "flow", "--with", "changed.py", "--json", seed="6")
    assert answer.returncode == 0, answer.stderr
    assert not any(event["new"] or event["removed"] for event in json.loads(answer.stdout)["calls"])


def test_where_the_seed_cannot_be_known_a_divergence_says_so(bag: Path, retroact: Retroact) -> None:
    """An application that was started without PYTHONHASHSEED; its process has ended."""
    with App(bag / "bag.db", load_path(bag / "bag.py")) as app:
        app.run("setup")
        app.run("pour", run="pour")
    edit(bag / "bag.db", "update retroact_process set hash_seed = null")
    answer = replayed(bag, "pour", seed="99")
    assert not answer["faithful"]
    (transaction,) = answer["transactions"]
    assert "start the application with PYTHONHASHSEED=<number>" in transaction["reason"]
    shown = process(bag, "replay", "pour", seed="99")
    assert "a hash seed that Python chose" in shown.stdout


def test_what_a_divergence_is_suspected_of() -> None:
    here = Hashing(seed=None, probe=1)
    assert suspicion(Hashing(seed="5", probe=1), here) is None
    assert "does not tell" in (suspicion(None, here) or "")
    assert "PYTHONHASHSEED=5 and this process has another" in (suspicion(Hashing(seed="5", probe=2), here) or "")
    assert "hashes otherwise" in (suspicion(Hashing(seed="5", probe=2), Hashing(seed="5", probe=1)) or "")


def test_a_database_of_the_version_before_still_opens(bag: Path) -> None:
    code = load_path(bag / "bag.py")
    with App(bag / "bag.db", code) as app:
        app.run("setup")
        app.run("pour", run="before")
    edit(bag / "bag.db", "drop table retroact_process; drop table retroact_verification; update retroact_meta set value = '1'")
    assert replayed(bag, "before", seed="1")["verdicts"]["diverged"] == 1  # nothing tells which seed it had
    assert process(bag, "doctor", "--json").returncode == 0
    with App(bag / "bag.db", code) as app:
        assert app.trace.hashing(1) is None
        app.run("pour", run="after")
        assert app.trace.hashing(app.trace.run(RunId("after")).last or 0) is not None
        assert app.replay(["before", "after"]).faithful
