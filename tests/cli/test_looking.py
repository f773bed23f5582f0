"""`retroact trace RUN --step N`: one transaction, looked at whole."""

from __future__ import annotations

import re
from pathlib import Path

from tests.cli.conftest import SHOP, Retroact

from retroact import App
from retroact.function.code import load_path


def test_a_transaction_is_looked_at(retroact: Retroact) -> None:
    answer = retroact("trace", "one", "--step", "2")
    assert answer.code == 0, answer
    said = re.sub(r" +", " ", answer.out)
    assert 'transaction update(item="apple")' in said
    assert "version 3, it saw the state as of version 2" in said
    assert "1 update inventory set available = available - 1 where item = :item" in said
    assert 'before "apple" 2' in said
    assert 'after "apple" 1' in said
    assert re.search(r"inventory\[1\] 1 opening setup statement 1", said)
    assert re.search(r"who read what it wrote\n version run function what\n 5 saw-one check inventory\[1\]", said)
    assert "note:" not in answer.err


def test_a_transaction_that_was_run_alone_is_step_0(retroact: Retroact) -> None:
    said = retroact("trace", "saw-one", "--step", "0").out
    assert "available" in said
    assert "it wrote nothing" in said


def test_a_look_as_json_has_everything(retroact: Retroact) -> None:
    found = retroact("trace", "one", "--step", "2", "--json").json
    assert found["statements"][0]["parameters"] == {"item": "apple"}
    assert found["statements"][0]["changes"][0]["after"] == {"available": 1}
    row = {"table": "inventory", "key": [1]}
    assert found["rows"] == [{**row, "before": {"item": "apple", "available": 2}, "after": {"item": "apple", "available": 1}}]
    writer = {"version": 1, "run": "opening", "step": 0, "function": "setup"}
    assert found["read"] == [{**row, "statements": [1], "itself": False, "writer": writer}]
    assert {"version": 5, "run": "saw-one", "step": 0, "function": "check", "rows": [row], "tables": []} in found["readers"]
    assert found["notes"] == []


def test_what_no_longer_does_the_same_is_said(retroact: Retroact) -> None:
    answer = retroact("trace", "chance", "--step", "0")
    assert answer.code == 0
    assert "Executed again it does not do what its record says, from statement 1 on" in answer.err


def test_what_is_no_transaction_is_refused(retroact: Retroact) -> None:
    answer = retroact("trace", "one", "--step", "3")
    assert answer.code == 2
    assert "Its transactions are steps 1, 2" in answer.err
    assert retroact("trace", "no-such-run", "--step", "0").code == 2


def test_without_its_code_it_shows_what_the_record_has(tmp_path: Path, retroact: Retroact) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "retroact.toml").write_text('code = "shop.py"\ndatabase = "shop.db"\n')
    module = load_path(tmp_path / "shop.py")
    bare = [value for value in vars(module).values() if getattr(value, "name", "") in ("setup", "update")]
    for function in bare:
        function.module = "nowhere"  # as a function that was typed into a prompt
    with App(tmp_path / "shop.db", bare) as app:
        app.run("setup", run="opening")
        app.run("update", "apple", run="sold")
    answer = retroact("trace", "sold", "--step", "0", at=tmp_path)
    assert answer.code == 0
    assert "cannot be executed again" in answer.err
    assert "update inventory set available" in answer.out
    assert 'before  "apple"  2' in answer.out
