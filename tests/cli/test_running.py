"""run, cancel, resume, recover and init."""

from __future__ import annotations

import io
import shlex
from pathlib import Path

import pytest
from tests.cli.conftest import Retroact

from retroact.app import App
from retroact.function.code import load_path


def test_a_result_is_json_and_the_run_id_is_told(retroact: Retroact, project: Path) -> None:
    answer = retroact("run", "update", '{"item": "apple"}', "--run", "mine", at=project)
    assert (answer.code, answer.out) == (0, "null\n")  # what the body prints is not in the answer
    # Not line by line: what a body prints comes from a thread of its own, and Python writes a text and its line end apart.
    assert all(told in answer.err for told in ("run mine", "a body that prints", "1 run was interrupted"))


def test_arguments_by_position_and_from_standard_input(retroact: Retroact, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert retroact("run", "check", '["apple"]', at=project).out == "false\n"
    monkeypatch.setattr("sys.stdin", io.StringIO('{"item": "apple"}'))
    assert retroact("run", "check", "-", at=project).out == "false\n"


def test_the_same_id_runs_once(retroact: Retroact, project: Path) -> None:
    before = retroact("asof", "0s", "select available from inventory", "--json", at=project).json["rows"]
    again = retroact("run", "checkout", '{"item": "apple"}', "--run", "one", "--json", at=project)
    assert (again.code, again.json["value"], again.json["run"]) == (0, "paid", "one")
    assert retroact("asof", "0s", "select available from inventory", "--json", at=project).json["rows"] == before


def test_an_aborted_run_is_a_no(retroact: Retroact, project: Path) -> None:
    answer = retroact("run", "checkout", '{"item": "apple"}', "--run", "late", at=project)
    assert (answer.code, answer.out) == (1, "")
    assert "retroact: checkout aborted: OutOfStock: apple. `retroact trace late` shows what it did." in answer.err
    told = retroact("run", "checkout", '{"item": "apple"}', "--json", at=project)
    assert told.code == 1
    assert {k: told.json[k] for k in ("error", "message", "definite", "blame")} == {
        "error": "OutOfStock",
        "message": "apple",
        "definite": True,
        "blame": "code",
    }
    assert told.json["state"] == "aborted"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["nothing"], 2, "Known functions: "),
        (["check"], 2, "missing item"),
        (["check", '{"item": 5}'], 2, "Expected `str`"),
        (["check", '{"item": "apple", "more": 1}'], 2, "more"),
        (["check", "{apple}"], 2, "not JSON"),
        (["check", "5"], 2, "neither an object nor an array"),
        (["check", '{"run": "apple"}'], 2, "by position"),
        (["never_oversold"], 2, "invariant"),
        (["wrong"], 3, "no such table: nowhere"),
        (["check", '["apple"]', "--run", "one"], 2, "was started as checkout"),
        (["check", '["apple"]', "--code", "missing.py"], 2, "there is no code missing.py"),
        (["check", '["apple"]', "--code", "broken.py"], 3, "cannot be loaded"),
        (["check", '["apple"]', "--db", "no/where/x.db"], 2, "does not exist"),
    ],
)
def test_what_cannot_be_run(retroact: Retroact, project: Path, words: list[str], code: int, says: str) -> None:
    (project / "broken.py").write_text("import nonsense_that_is_not_there\n")
    answer = retroact("run", *words, at=project)
    assert (answer.code, answer.out) == (code, "")
    assert says in answer.err
    assert "Traceback" not in answer.err
    told = retroact("run", *words, "--json", at=project)
    assert told.code == code
    assert told.json["blame"] in ("caller", "code")


def test_a_database_that_another_has_open(retroact: Retroact, project: Path) -> None:
    with App(project / "shop.db", load_path(project / "shop.py"), recover=False):
        answer = retroact("run", "check", '["apple"]', at=project)
        assert (answer.code, "is open in another process" in answer.err) == (5, True)
        assert retroact("runs", at=project).code == 0
        assert "has it open" in retroact("doctor", at=project).out


def test_cancel_and_resume(retroact: Retroact, project: Path) -> None:
    assert retroact("cancel", "asleep", at=project).code == 0
    assert retroact("runs", "--state", "cancelled", "--json", at=project).json[0]["run"] == "asleep"
    assert retroact("recover", at=project).out == "no run was interrupted\n"
    resumed = retroact("resume", "asleep", at=project)
    assert (resumed.code, "OutOfStock" in resumed.err) == (1, True)
    over = retroact("cancel", "asleep", at=project)
    assert (over.code, "is aborted already" in over.err) == (1, True)
    assert retroact("resume", "one", at=project).out == '"paid"\n'


def test_recover_completes_what_was_interrupted(retroact: Retroact, project: Path) -> None:
    answer = retroact("recover", "--json", at=project)
    assert answer.code == 0
    assert [(run["run"], run["state"]) for run in answer.json["runs"]] == [("asleep", "aborted")]
    assert retroact("recover", at=project).out == "no run was interrupted\n"


def test_recover_leaves_a_run_whose_function_is_gone(retroact: Retroact, project: Path) -> None:
    source = (project / "shop.py").read_text()
    (project / "shop.py").write_text(source.replace("def checkout(", "def buy(").replace("checkout(item)", "buy(item)"))
    answer = retroact("recover", at=project)
    assert answer.code == 1
    assert "1 run still waiting" in answer.out
    doctor = retroact("doctor", at=project)
    assert (doctor.code, "no function named 'checkout' is registered" in doctor.out) == (1, True)


@pytest.mark.parametrize("verb", ["cancel", "resume", "trace"])
def test_a_run_that_is_not_there(retroact: Retroact, project: Path, verb: str) -> None:
    answer = retroact(verb, "nobody", at=project)
    assert (answer.code, "There is no run 'nobody'" in answer.err) == (2, True)


@pytest.mark.parametrize("words", [["cancel", "x"], ["resume", "x"], ["recover"]])
def test_no_database_is_made_by_looking_for_one(retroact: Retroact, tmp_path: Path, words: list[str]) -> None:
    assert retroact(*words, "--db", str(tmp_path / "x.db")).code == 2
    assert list(tmp_path.iterdir()) == []


def test_init_writes_a_project_whose_commands_work(retroact: Retroact, tmp_path: Path) -> None:
    answer = retroact("init", "new", at=tmp_path)
    assert answer.code == 0
    commands = [shlex.split(line) for line in answer.out.splitlines() if line.startswith("  retroact ")]
    assert len(commands) == 3
    for command in commands:
        assert retroact(*command[1:], at=tmp_path / "new").code == 0
    assert retroact("doctor", at=tmp_path / "new").code == 0


def test_init_overwrites_nothing(retroact: Retroact, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("mine")
    answer = retroact("init", at=tmp_path)
    assert (answer.code, "is there already" in answer.err) == (2, True)
    assert [p.name for p in tmp_path.iterdir()] == ["shop.py"]
    assert (tmp_path / "shop.py").read_text() == "mine"


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        (None, "no retroact.toml in"),
        ("code = ", "cannot be read"),
        ("code = 5", "is not understood"),
        ('colour = "red"', "is not understood"),
        ('code = "shop.py"', "does not name the database"),
    ],
)
def test_a_project_that_is_not_told(retroact: Retroact, tmp_path: Path, toml: str | None, says: str) -> None:
    if toml is not None:
        (tmp_path / "retroact.toml").write_text(toml)
    answer = retroact("runs", at=tmp_path)
    assert (answer.code, says in answer.err) == (2, True), answer


def test_a_project_is_found_from_below(retroact: Retroact, project: Path) -> None:
    (project / "deep" / "down").mkdir(parents=True)
    assert retroact("runs", at=project / "deep" / "down").code == 0
