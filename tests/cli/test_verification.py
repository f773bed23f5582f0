"""`retroact run --verify-rate`, the setting of a project, and what doctor says of it later."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import Retroact

LUCK = """
import itertools
from retroact import transaction

NUMBERS = itertools.count()


@transaction
def setup(conn) -> None:
    conn.execute("create table t (n integer)")


@transaction
def luck(conn) -> None:
    conn.execute("insert into t values (:n)", n=next(NUMBERS))
"""


@pytest.fixture
def luck(tmp_path: Path) -> Path:
    (tmp_path / "luck.py").write_text(LUCK)
    (tmp_path / "retroact.toml").write_text('code = "luck.py"\ndatabase = "luck.db"\n')
    return tmp_path


def test_what_is_not_deterministic_is_told_until_it_is(retroact: Retroact, luck: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert retroact("run", "setup", "--verify-rate", "1", at=luck).code == 0
    assert retroact("doctor", "--json", at=luck).json["verification"] == {"checked": 1, "left_out": 0, "diverged": 0}
    assert retroact("run", "luck", "--run", "first", "--verify-rate", "1", at=luck).code == 0
    assert "luck is not deterministic" in caplog.text
    assert "luck.py:15: RT301 next(NUMBERS)" in caplog.text
    answer = retroact("doctor", "--json", at=luck)
    assert answer.code == 1
    assert answer.json["verification"] == {"checked": 2, "left_out": 0, "diverged": 1}
    (problem,) = answer.json["problems"]
    assert "luck is not deterministic: executed a second time, run first (version 2) parted from its record at statement 1" in problem
    (luck / "luck.py").write_text(LUCK.replace("next(NUMBERS)", "5"))
    assert retroact("run", "luck", "--verify-rate", "1", at=luck).code == 0
    answer = retroact("doctor", "--json", at=luck)
    assert (answer.code, answer.json["verification"]["diverged"]) == (0, 1)  # a fact, and no problem any more


def test_the_rate_of_a_project(retroact: Retroact, luck: Path) -> None:
    with (luck / "retroact.toml").open("a") as file:
        file.write("verify_rate = 1\n")
    assert retroact("run", "setup", at=luck).code == 0
    assert retroact("doctor", "--json", at=luck).json["verification"]["checked"] == 1
    assert retroact("run", "luck", "--verify-rate", "0", at=luck).code == 0
    assert retroact("doctor", "--json", at=luck).json["verification"]["checked"] == 1


@pytest.mark.parametrize(
    "setting", ["verify_rate = 2", "verify_rate = 'x'", "verify_rate = true", "[lint]\nignore = 5", "[lint]\nother = []"]
)
def test_what_a_project_cannot_say(retroact: Retroact, luck: Path, setting: str) -> None:
    with (luck / "retroact.toml").open("a") as file:
        file.write(setting + "\n")
    answer = retroact("run", "setup", at=luck)
    assert answer.code == 2
    assert "is not understood" in answer.err or "between 0 and 1" in answer.err
