"""runs, trace, asof, replay, retro and doctor, on a project that oversold."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import SHOP, Retroact


def test_runs_are_listed_newest_first(retroact: Retroact) -> None:
    answer = retroact("runs")
    assert answer.code == 0
    head, *rows = answer.out.splitlines()
    assert head.split() == ["run", "function", "state", "began", "took", "outcome"]
    assert rows[-1].startswith("opening")
    assert any("declined" in row and "aborted" in row and "ValueError: negative" in row for row in rows)
    assert len({len(row.split("committed")[0]) for row in rows if "committed" in row}) == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--function", "checkout"], ["asleep", "one"]),
        (["--function", "nothing"], []),
        (["--state", "aborted"], ["declined"]),
        (["--state", "running"], ["asleep"]),
        (["--since", "2h", "--function", "setup"], ["opening"]),
        (["--until", "2001-01-01"], []),
        (["--function", "chance", "--most", "1"], ["chance"]),
    ],
)
def test_runs_are_chosen(retroact: Retroact, words: list[str], expected: list[str]) -> None:
    assert sorted(run["run"] for run in retroact("runs", "--json", *words).json) == expected


def test_a_list_that_was_cut_says_so(retroact: Retroact) -> None:
    answer = retroact("runs", "--most", "2")
    assert len(answer.out.splitlines()) == 3
    assert "--most" in answer.err


def test_a_trace_shows_calls_and_changed_rows(retroact: Retroact) -> None:
    answer = retroact("trace", "one")
    assert 'checkout(item="apple")' in answer.out
    assert "inventory[1].available 2 -> 1" in answer.out
    assert "charge(cents=5)" in answer.out
    assert "select available" not in answer.out
    assert "select available from inventory where item = :item" in retroact("trace", "one", "--statements").out


def test_a_trace_as_json_has_everything(retroact: Retroact) -> None:
    found = retroact("trace", "one", "--json").json
    assert [step["function"] for step in found["steps"]] == ["check", "update", "charge"]
    update = found["steps"][1]
    assert update["statements"][0]["parameters"] == {"item": "apple"}
    assert update["changes"][0]["before"] == {"available": 2}
    assert found["value"] == "paid"


def test_child_runs_are_indented(retroact: Retroact, project: Path) -> None:
    both = retroact("run", "twice", '["apple"]', "--run", "both", at=project)
    assert both.code == 1  # nothing is left to check out
    shown = retroact("trace", "both", at=project).out
    assert any("    check(" in line for line in shown.splitlines())
    assert retroact("trace", "both", "--json", at=project).json["steps"][0]["child"]["function"] == "checkout"


@pytest.mark.parametrize(("version", "available"), [("1", 2), ("2", 2), ("3", 1)])
def test_asof_answers_about_the_past(retroact: Retroact, version: str, available: int) -> None:
    found = retroact("asof", version, "select item, available from inventory", "--json").json
    assert found["rows"] == [{"item": "apple", "available": available}]
    assert f"apple  {available:>9}" in retroact("asof", version, "select * from inventory").out


def test_asof_takes_a_time(retroact: Retroact) -> None:
    now = retroact("asof", "0s", "select available from inventory", "--json")
    assert now.json["rows"] == [{"available": 0}]
    early = retroact("asof", "2001-01-01", "select 1")
    assert (early.code, "no version had begun" in early.err) == (2, True)


def test_asof_lets_a_query_end_as_queries_do(retroact: Retroact) -> None:
    assert retroact("asof", "3", "select ';' as a; -- a remark", "--json").json["rows"] == [{"a": ";"}]


def test_asof_tells_columns_of_one_name_apart(retroact: Retroact) -> None:
    assert retroact("asof", "1", "select 1 as a, 2 as a, null as b", "--json").json["rows"] == [{"a": 1, "a:2": 2, "b": None}]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["99", "select 1"], "versions 0 to"),
        (["-1", "select 1"], "versions 0 to"),
        (["5 o'clock", "select 1"], "is not a time"),
        (["3", "select nothing from"], "syntax"),
        (["3", "select * from nowhere"], "no such table: nowhere"),
        (["3", "delete from inventory"], "read, not written"),
        (["3", "create table x (a)"], "read, not written"),
        (["3", "select :x"], "parameters"),
        (["3", ""], "empty"),
        (["3", "select 1; select 2, 3"], "more than one statement"),
    ],
)
def test_asof_refuses_what_it_cannot_answer(retroact: Retroact, words: list[str], says: str) -> None:
    answer = retroact("asof", *words)
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.startswith("retroact: ")
    assert "Traceback" not in answer.err
    assert says in answer.err


def test_a_faithful_replay(retroact: Retroact) -> None:
    answer = retroact("replay", "one", "--timeline")
    assert answer.code == 0, answer
    assert "2 transactions: 2 identical" in answer.out
    assert "1 workflow: 1 identical; 1 other call answered from the record" in answer.out
    assert "● update inventory.available 2 -> 1" in answer.out


def test_a_replay_that_diverges_says_where_and_why(retroact: Retroact) -> None:
    answer = retroact("replay", "chance")
    assert answer.code == 1
    assert "Then T diverged at statement 1" in answer.out
    assert "because the body computed other parameters" in answer.out
    found = retroact("replay", "one", "chance", "--json")
    assert found.code == 1
    assert found.json["verdicts"]["diverged"] == 1
    assert [t["run"] for t in found.json["transactions"] if t["divergence"]] == ["chance"]


def test_a_fix_that_merges_two_transactions_is_clean(retroact: Retroact) -> None:
    answer = retroact("retro", "one", "--with", "fixed.py")
    assert answer.code == 0, answer
    assert "no longer called" in answer.out
    assert "clean: 1 run" in answer.out


def test_retroaction_tells_which_transaction_breaks_an_invariant(retroact: Retroact) -> None:
    answer = retroact("retro", "--all", "--with", "shop.py", "--timeline")
    assert answer.code == 1
    assert "broken by update of run oversold" in answer.out
    assert "not clean" in answer.out
    found: Any = retroact("retro", "--all", "--with", "shop.py", "--json").json
    full: Any = retroact("retro", "--all", "--with", "shop.py", "--json", "--full").json
    assert {**full, "seconds": 0, "effort": 0} == {**found, "seconds": 0, "effort": 0}
    assert full["effort"]["executed"] == sum(found["effort"].values()) > found["effort"]["executed"]
    assert found["clean"] is False
    assert [v["run"] for v in found["violations_after"]] == ["oversold"]


def test_an_answer_stands_in_for_a_step(retroact: Retroact, project: Path) -> None:
    (project / "dearer.py").write_text(SHOP.replace("charge(cents)", "charge(cents + 1)"))
    undecided = retroact("retro", "one", "--with", "dearer.py", at=project)
    assert undecided.code == 1
    assert "--answer charge=JSON" in undecided.out
    decided = retroact("retro", "one", "--with", "dearer.py", "--answer", 'charge="more"', "--json", at=project)
    assert decided.code == 0
    assert decided.json["runs"][0]["now"]["value"] == "more"


@pytest.mark.parametrize(
    "words",
    [
        ["trace", "nobody"],
        ["replay", "nobody"],
        ["retro", "nobody", "--with", "fixed.py"],
        ["retro", "one", "--with", "missing.py"],
        ["retro", "one"],
        ["retro", "one", "--with", "fixed.py", "--answer", "charge"],
        ["replay"],
        ["replay", "one", "--all"],
        ["replay", "--since", "yesterday"],
        ["replay", "--until", "2001-01-01"],
        ["replay", "--since", "1m", "--until", "2h"],
        ["runs", "--state", "happy"],
        ["runs", "--most", "many"],
        ["runs", "--db", "missing.db"],
        ["runs", "--nonsense"],
    ],
)
def test_a_wrong_call_is_the_callers_mistake(retroact: Retroact, words: list[str]) -> None:
    answer = retroact(*words)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("retroact: ")
    assert len(answer.err.splitlines()) == 1
    told = retroact(*words, "--json")
    assert told.code == 2
    assert told.json["blame"] == "caller"
    assert told.err == ""


def test_a_file_that_is_no_database(retroact: Retroact, tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("this is not a database, it is a letter")
    for words in (["runs"], ["asof", "1", "select 1"], ["replay", "--all"], ["trace", "x"]):
        answer = retroact(*words, "--db", str(tmp_path / "x.db"))
        assert (answer.code, answer.out) == (5, "")
        assert "is not a SQLite database" in answer.err


def test_a_database_without_a_trace(retroact: Retroact, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "x.db")
    connection.execute("create table t (a)")
    connection.close()
    answer = retroact("runs", "--db", str(tmp_path / "x.db"))
    assert (answer.code, "has no trace" in answer.err) == (2, True)


def test_doctor_finds_the_interrupted_run(retroact: Retroact) -> None:
    answer = retroact("doctor")
    assert answer.code == 1
    assert "`retroact recover`" in answer.out
    found = retroact("doctor", "--json").json
    assert found["integrity"] == {"page_log": "whole", "records": f"whole up to version {found['trace']['records']}", "pages": "whole"}
    assert found["database"]["synchronous"] == "full"
    assert len(found["problems"]) == 1


def test_doctor_is_content_with_a_sound_project(retroact: Retroact, project: Path) -> None:
    assert retroact("recover", at=project).code == 0
    answer = retroact("doctor", at=project)
    assert (answer.code, "Everything is in order." in answer.out) == (0, True)


def test_doctor_finds_an_edited_record(retroact: Retroact, project: Path) -> None:
    connection = sqlite3.connect(project / "shop.db")
    connection.execute("update retroact_record set value = '7' where version = 3")
    connection.commit()
    connection.close()
    answer = retroact("doctor", at=project)
    assert answer.code == 1
    assert "Record 3 of shop.db was changed" in answer.out
    replayed = retroact("replay", "one", at=project)
    assert replayed.code == 4
    assert replayed.err.startswith("retroact: Record 3 of")
