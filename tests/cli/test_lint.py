"""`retroact lint`: what is shown, to people and to programs, and with which exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from inline_snapshot import snapshot
from tests.cli.conftest import Retroact

HEAD = "from retroact import transaction\n@transaction\ndef f(conn):\n"
SHOP = """\
import time

from retroact import transaction, workflow

COUNTER = iter(range(10))


@transaction
def reserve(conn, item: str) -> None:
    conn.execute(f"update t set n = n - 1 where item = '{item}'")
    conn.execute("insert into log values (:at)", at=time.time())


@workflow
def order(items: set[str]) -> int:
    for item in items:
        reserve(item)
    return next(COUNTER)
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "retroact.toml").write_text('code = "shop.py"\ndatabase = "shop.db"\n')
    return tmp_path


def test_what_a_person_sees(retroact: Retroact, shop: Path) -> None:
    answer = retroact("lint", at=shop)
    assert answer.code == 1
    assert answer.err == "--notes shows the note, where nothing needs to be done\n"
    assert answer.out == snapshot("""\
warning[RT401] an f-string makes SQL from values, which may then be read as SQL; and each text is a statement of its own
  --> shop.py:10:18 in reserve
   |
10 | conn.execute(f"update t set n = n - 1 where item = '{item}'")
   |              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
   = remedy: Give values as parameters: conn.execute("... where item = :item", item=item).

warning[RT303] items is gone through in an order that the hash seed of the process decides
  --> shop.py:16:17 in order
   |
16 | for item in items:
   |             ^^^^^
   = remedy: Go through `sorted(...)` of it, or keep it as a list or a dict.

error[RT301] next(COUNTER) changes what the module remembers: no rollback undoes it, and a replay begins without it
  --> shop.py:18:12 in order
   |
18 | return next(COUNTER)
   |        ^^^^^^^^^^^^^
   = remedy: Keep it in a table, or pass it in and return it.

1 error, 2 warnings, 1 note in 1 file
""")


def test_nothing_found(retroact: Retroact, shop: Path) -> None:
    (shop / "fine.py").write_text("from retroact import transaction\n@transaction\ndef f(conn) -> None:\n    conn.execute('select 1')\n")
    assert retroact("lint", "fine.py", "--strict", at=shop).out == "Nothing found in 1 file\n"
    assert retroact("lint", "fine.py", at=shop).code == 0


def test_exit_codes_and_choices(retroact: Retroact, shop: Path) -> None:
    assert retroact("lint", "--ignore", "RT301", at=shop).code == 0
    assert retroact("lint", "--ignore", "RT301", "--strict", at=shop).code == 1
    assert retroact("lint", "--ignore", "RT301", "--ignore", "RT303", "--ignore", "RT401", "--strict", at=shop).code == 0
    assert "note[RT101]" in retroact("lint", "--notes", at=shop).out
    with (shop / "retroact.toml").open("a") as file:
        file.write('[lint]\nignore = ["RT301", "RT303", "RT401"]\n')
    assert retroact("lint", "--strict", at=shop).code == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere.py"], "there is no code nowhere.py"),
        (["retroact.toml"], "neither a .py file nor a folder"),
        (["empty"], "there is no Python file in empty"),
        (["--ignore", "RT999"], "there is no rule RT999. `retroact lint --rules` lists them"),
        (["--output", "x"], "--output needs a format"),
    ],
)
def test_what_cannot_be_asked(retroact: Retroact, shop: Path, words: list[str], says: str) -> None:
    (shop / "empty").mkdir()
    answer = retroact("lint", *words, at=shop)
    assert answer.code in (2, 3)
    assert says in answer.err


def test_a_folder_is_read_file_by_file_without_executing_it(retroact: Retroact, shop: Path) -> None:
    (shop / "pkg" / "venv").mkdir(parents=True)
    (shop / "pkg" / "venv" / "left_out.py").write_text("def f(:")
    (shop / "pkg" / "__init__.py").write_text("raise SystemExit('executed')")
    (shop / "pkg" / "a.py").write_text("from retroact import transaction\nfrom .b import g\n@transaction\ndef f(conn):\n    g()\n")
    (shop / "pkg" / "b.py").write_text("def g():\n    open('x')  # retroact: allow RT201 a test\n    input()\n")
    (shop / "pkg" / "broken.py").write_text("def f(:\n")
    answer = retroact("lint", ".", "--json", at=shop)
    found = [(f["file"], f["line"], f["rule"]) for f in answer.json["findings"]]
    assert ("pkg/b.py", 3, "RT208") in found
    assert ("pkg/broken.py", 1, "RT002") in found
    assert not any(rule in {"RT001", "RT201"} for _, _, rule in found)
    assert answer.json["files"] == 5
    assert answer.json["errors"] == 3


def test_json(retroact: Retroact, shop: Path) -> None:
    answer = retroact("lint", "shop.py", "--json", at=shop)
    assert (answer.json["errors"], answer.json["warnings"], answer.json["notes"]) == (1, 2, 1)
    assert answer.json["findings"][0] == {
        "file": "shop.py",
        "line": 10,
        "column": 18,
        "end": 65,
        "rule": "RT401",
        "function": "reserve",
        "message": "an f-string makes SQL from values, which may then be read as SQL; and each text is a statement of its own",
        "remedy": 'Give values as parameters: conn.execute("... where item = :item", item=item).',
        "severity": "warning",
    }


def check_sarif(log: Any) -> None:
    """What the schema of SARIF 2.1.0 requires of the parts that are used here."""
    assert log.keys() <= {"$schema", "version", "runs", "inlineExternalProperties", "properties"}
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-2.1.0.json")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert isinstance(driver["name"], str)
    ids = [rule["id"] for rule in driver["rules"]]
    assert len(set(ids)) == len(ids)
    for rule in driver["rules"]:
        assert rule.keys() <= {"id", "name", "shortDescription", "fullDescription", "help", "helpUri", "defaultConfiguration"}
        assert rule["shortDescription"]["text"]
        assert rule["help"]["text"]
        assert rule["defaultConfiguration"]["level"] in ("none", "note", "warning", "error")
    assert run["columnKind"] in ("utf16CodeUnits", "unicodeCodePoints")
    assert all(base["uri"].endswith("/") for base in run["originalUriBaseIds"].values())
    for result in run["results"]:
        assert ids[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in ("none", "note", "warning", "error")
        assert result["message"]["text"]
        for location in result["locations"]:
            artifact = location["physicalLocation"]["artifactLocation"]
            assert artifact["uriBaseId"] in run["originalUriBaseIds"]
            assert not artifact["uri"].startswith("/")
            region = location["physicalLocation"]["region"]
            assert all(isinstance(number, int) and number >= 1 for number in region.values())
            assert region["endColumn"] > region["startColumn"]


def test_sarif(retroact: Retroact, shop: Path) -> None:
    answer = retroact("lint", "--sarif", at=shop)
    assert answer.code == 1
    check_sarif(answer.json)
    assert [result["ruleId"] for result in answer.json["runs"][0]["results"]] == ["RT401", "RT101", "RT303", "RT301"]
    written = retroact("lint", "--sarif", "-o", "lint.sarif", at=shop)
    assert (written.code, written.out) == (1, "")
    assert json.loads((shop / "lint.sarif").read_text()) == answer.json


def test_columns_of_sarif_are_characters(retroact: Retroact, shop: Path) -> None:
    (shop / "umlaut.py").write_text(HEAD + "    x = 'üü'; open(x)\n", encoding="utf-8")
    (result,) = retroact("lint", "umlaut.py", "--sarif", at=shop).json["runs"][0]["results"]
    region = result["locations"][0]["physicalLocation"]["region"]
    assert "    x = 'üü'; open(x)"[region["startColumn"] - 1 : region["endColumn"] - 1] == "open"


def test_the_rules(retroact: Retroact, shop: Path) -> None:
    assert "RT303 order-of-a-set (warning)" in retroact("lint", "--rules", at=shop).out
    assert retroact("lint", "--rules", "--json", at=shop).json[0]["id"] == "RT001"
