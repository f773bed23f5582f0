"""`retroact export`, as it is seen."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Retroact


def test_it_says_what_was_written_and_what_to_type_elsewhere(retroact: Retroact, tmp_path: Path) -> None:
    told = retroact("export", "one", "oversold", "-o", str(tmp_path / "bug.retro"))
    assert told.code == 0
    first, *_, last = told.out.splitlines()
    assert first.startswith(f"{tmp_path / 'bug.retro'}  ")
    assert "kB: 2 runs, 7 records (versions 2 to 8), " in first
    assert last == "replayed from the file: 3 identical"
    assert told.err.splitlines()[-1] == "elsewhere: retroact replay bug.retro --all; retroact retro bug.retro --all --with FIXED.py"


def test_what_is_not_identical_is_listed(retroact: Retroact, tmp_path: Path) -> None:
    """It counts with something that is in no record."""
    told = retroact("export", "chance", "declined", "-o", str(tmp_path / "bug.retro"))
    assert told.code == 1
    assert "Not identical from the file\n  version 9, chance of run chance: diverged" in told.out
    elsewhere = retroact("replay", "bug.retro", "chance", at=tmp_path)
    assert elsewhere.code == 1
    assert "1 diverged" in elsewhere.out
    assert retroact("trace", "bug.retro", "declined", at=tmp_path).code == 0


def test_a_run_that_did_nothing_yet_can_be_exported(retroact: Retroact, tmp_path: Path) -> None:
    told = retroact("export", "asleep", "-o", str(tmp_path / "bug.retro"), "--json")
    assert (told.code, told.json["records"], told.json["runs"]) == (0, 0, ["asleep"])
    listed = retroact("runs", "bug.retro", "--json", at=tmp_path).json
    assert [(run["run"], run["state"]) for run in listed] == [("asleep", "running")]
    assert retroact("replay", "bug.retro", "asleep", at=tmp_path).code == 0


def test_a_retroaction_elsewhere_needs_no_project(retroact: Retroact, past: Path, tmp_path: Path) -> None:
    retroact("export", "one", "last", "oversold", "-o", str(tmp_path / "bug.retro"))
    words = ["one", "last", "oversold", "--with", str(past / "fixed.py")]
    here, there = retroact("retro", *words), retroact("retro", "bug.retro", *words, at=tmp_path)
    assert there.code == here.code
    assert there.out.splitlines()[:-1] == here.out.splitlines()[:-1]


def test_what_is_asked_wrongly_is_said(retroact: Retroact, tmp_path: Path) -> None:
    assert "-o/--out" in retroact("export", "one").err
    assert (
        "there is no such column. They are named TABLE.COLUMN: inventory.item, inventory.available."
        in retroact("export", "one", "-o", str(tmp_path / "x.retro"), "--redact", "inventory.nothing").err
    )
    missing = retroact("runs", "nowhere.retro", at=tmp_path)
    assert missing.code == 2
    assert "nowhere.retro" in missing.err
