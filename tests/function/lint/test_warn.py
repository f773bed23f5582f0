"""What lint finds is told when code is registered: at its line, with the remedy, and once."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import pytest

from retroact import App, DeterminismWarning, transaction
from retroact.function.code import load_path, unload
from retroact.function.lint import warn as warning

TEXT = """
import time
from retroact import transaction

@transaction
def measure(conn) -> float:
    return time.perf_counter()

@transaction
def fine(conn) -> float:
    return time.time()
"""


def told(path: Path, database: Path) -> list[warnings.WarningMessage]:
    module = load_path(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        App(database, module).close()
    unload(module)
    return [each for each in caught if issubclass(each.category, DeterminismWarning)]


def test_a_warning_names_line_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "shop.py"
    path.write_text(TEXT)
    (only,) = told(path, tmp_path / "shop.db")
    assert (only.filename, only.lineno) == (str(path), 7)
    assert str(only.message).startswith("RT102 measure: time.perf_counter() reads a clock of the machine")
    assert str(only.message).endswith("measure durations in a @step.")


def test_it_is_told_once_for_each_version_of_the_code(tmp_path: Path) -> None:
    path = tmp_path / "shop.py"
    path.write_text(TEXT)
    assert len(told(path, tmp_path / "shop.db")) == 1
    assert told(path, tmp_path / "shop.db") == []
    assert len(told(path, tmp_path / "another.db")) == 1
    path.write_text(TEXT + "\n# changed\n")
    assert len(told(path, tmp_path / "shop.db")) == 1


def test_only_what_is_registered_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "shop.py"
    path.write_text(TEXT)
    module = load_path(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        App(tmp_path / "shop.db", module.fine).close()
    unload(module)


def test_many_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warning, "MOST", 2)
    path = tmp_path / "shop.py"
    path.write_text(TEXT + "".join(f"\n@transaction\ndef f{n}(conn) -> None:\n    open('x')\n" for n in range(5)))
    found = told(path, tmp_path / "shop.db")
    assert len(found) == 3
    assert str(found[-1].message) == "4 more findings: `retroact lint` shows them all"


NUMBERS = itertools.count()


@transaction
def of_this_module(conn: object) -> int:
    return next(NUMBERS)


def test_a_module_that_python_imported(tmp_path: Path) -> None:
    with pytest.warns(DeterminismWarning, match="RT301 of_this_module") as caught:
        App(tmp_path / "test.db", of_this_module).close()
    assert caught[0].filename == __file__


def test_where_warnings_are_errors_the_database_is_let_go(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DeterminismWarning):
            App(tmp_path / "test.db", of_this_module)
        warnings.simplefilter("ignore")
        App(tmp_path / "test.db", of_this_module).close()
