"""The same verbs on a Postgres database."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import SHOP, Retroact  # isort: skip


@pytest.fixture
def served(postgres: str, tmp_path: Path) -> Path:
    """A project whose database is on a server."""
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "retroact.toml").write_text(f'code = "shop.py"\ndatabase = "{postgres}"\n')
    return tmp_path


def test_a_run_is_carried_out_listed_and_shown(served: Path, retroact: Retroact) -> None:
    assert retroact("run", "setup", at=served).code == 0
    first = retroact("run", "checkout", '{"item": "apple"}', "--run", "one", at=served)
    assert (first.code, first.out) == (0, '"paid"\n')
    assert retroact("run", "checkout", '["apple"]', "--run", "one", "--json", at=served).json["value"] == "paid"
    listed = retroact("runs", "--json", at=served).json
    assert [(run["run"], run["state"]) for run in listed[:1]] == [("one", "committed")]
    shown = retroact("trace", "one", "--statements", at=served)
    assert shown.code == 0
    assert "update inventory set available = available - 1" in shown.out
    steps = retroact("trace", "one", "--json", at=served).json["steps"]
    assert [step["function"] for step in steps] == ["check", "update", "charge"]
    assert steps[0]["snapshot"].count(":") == 2
    failed = retroact("run", "wrong", at=served)
    assert failed.code == 3
    assert 'relation "nowhere" does not exist' in failed.err


def test_cancel_resume_and_recover(served: Path, retroact: Retroact) -> None:
    retroact("run", "setup", at=served)
    retroact("run", "checkout", '["apple"]', "--run", "one", at=served)
    assert retroact("cancel", "one", at=served).code == 1
    assert retroact("resume", "one", "--json", at=served).json["value"] == "paid"
    assert retroact("recover", at=served).out == "no run was interrupted\n"
    assert retroact("cancel", "nobody", at=served).code == 2


@pytest.mark.parametrize(
    "words",
    [
        ("asof", "3", "select 1"),
        ("replay", "--all"),
        ("retro", "one", "--with", "shop.py"),
        ("retro", "one", "--explore"),
        ("trace", "one", "--step", "1"),
        ("export", "one", "--out", "one.retro"),
        ("compact", "--vacuum"),
        ("migrate", "."),
        ("migrate", ".", "--status"),
        ("run", "setup", "--verify-rate", "0.5"),
    ],
)
def test_the_past_is_refused(served: Path, retroact: Retroact, words: tuple[str, ...]) -> None:
    answer = retroact(*words, at=served)
    assert answer.code == 2
    assert "needs a database that keeps its past, which is not kept on Postgres yet" in answer.err
    assert "password" not in answer.err


def test_the_doctor_knows_the_server(served: Path, retroact: Retroact) -> None:
    retroact("run", "setup", at=served)
    found = retroact("doctor", "--json", at=served).json
    assert found["database"]["path"].startswith("postgresql://")
    assert found["trace"]["records"] == 1
    assert found["integrity"]["records"] == "whole up to version 1"
    assert [problem for problem in found["problems"] if "acknowledges what a crash may lose" not in problem] == []
    elsewhere = retroact("doctor", "--db", "postgresql://127.0.0.1:1/x", at=served)
    assert elsewhere.code == 1
    assert "cannot be reached" in elsewhere.out


def test_a_server_without_a_trace(postgres: str, retroact: Retroact) -> None:
    answer = retroact("runs", "--db", postgres)
    assert answer.code == 2
    assert "has no trace" in answer.err
