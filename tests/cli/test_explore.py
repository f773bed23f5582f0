"""`retroact retro --explore` and `--schedule`: reports, JSON, exit codes, and what is refused."""

from __future__ import annotations

import contextlib
import shlex
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from retroact.app import App
from retroact.function.code import load_path

from .conftest import Retroact


@pytest.fixture(scope="session")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's shop, its orders taken one after the other: nothing has gone wrong. Not to be changed."""
    folder = tmp_path_factory.mktemp("orders")
    for name in ("shop.py", "shop_fixed.py"):
        (folder / name).write_text(resources.files("retroact.cli").joinpath(f"templates/{name}.template").read_text())
    (folder / "retroact.toml").write_text('code = "shop.py"\ndatabase = "shop.db"\n')
    shop: Any = load_path(folder / "shop.py")
    with App(folder / "shop.db", shop) as app:
        app.run("open_shop", {"espresso": 1, "grinder": 9}, run="opening")
        for number, item in enumerate(("espresso", "espresso", "grinder", *["grinder"] * 7)):
            with contextlib.suppress(shop.OutOfStock):
                app.run("checkout", shop.Order(f"o{number}", item), run=f"o{number}")
    return folder


def test_the_oversell_is_found_although_it_never_happened(retroact: Retroact, orders: Path) -> None:
    """Figure 3 of the article, before production finds it."""
    answer = retroact("retro", "o0", "o1", "--explore", at=orders)
    assert answer.code == 1
    lines = answer.out.splitlines()
    assert lines[0] == "2 runs from the state of version 1: o0, o1"
    assert "The smallest violating schedule: 1 preemption, 4 transactions" in lines, "who cannot be told stops at the payment"
    assert any(line.split()[0] == "turn" for line in lines if line)
    assert sum("✗ never_oversold" in line for line in lines) == 1
    assert [line.split()[0] for line in lines if line.startswith(("Let", "Then", "because"))] == ["Let", "Let", "Then", "because"]
    assert "It takes a race: when the runs follow one another, nothing goes wrong (looked at in 2 serial orders)." in lines
    assert "--mock STEP" in answer.out, "the loser's payment is not in the record"


def test_the_command_that_it_prints_runs_just_that_schedule(retroact: Retroact, orders: Path) -> None:
    found = retroact("retro", "o0", "o1", "--explore", "--mock", "process_payment", "--json", at=orders).json
    command = shlex.split(found["smallest"]["never_oversold"]["command"])
    assert command[0] == "retroact"
    answer = retroact(*command[1:], at=orders)
    assert answer.code == 1
    assert "✗ never_oversold" in answer.out
    assert "not clean: never_oversold; schedule " in answer.out
    again = retroact(*command[1:], "--json", at=orders).json
    assert again["broken"] == {"never_oversold": None}
    assert [t["turn"] for t in again["transactions"]] == [1, 2, 3, 4, 5, 6]


def test_the_fixed_code_has_no_such_schedule(retroact: Retroact, orders: Path) -> None:
    answer = retroact("retro", "o0", "o1", "--explore", "--with", "shop_fixed.py", "--mock", "process_payment", "--serial", at=orders)
    assert answer.code == 0
    assert answer.out.splitlines()[-1].startswith("clean: nothing goes wrong in any schedule")


def test_two_orders_are_found_among_ten(retroact: Retroact, orders: Path) -> None:
    """Ten runs have more orders than anybody can wait for; the race of two of them is found at once."""
    answer = retroact("retro", "--all", "--explore", "--seconds", "2", "--json", at=orders)
    assert answer.code == 1
    assert len(answer.json["runs"]) == 10, "the opening made the tables: it stays where it was"
    assert answer.json["exhausted"] == "2 s"
    assert answer.json["smallest"]["never_oversold"]["telling"] == 4


def test_what_was_asked_is_in_the_json(retroact: Retroact, orders: Path) -> None:
    found = retroact("retro", "o0", "o3", "--explore", "--seed", "4", "--preemptions", "all", "--json", at=orders).json
    assert (found["seed"], found["preemptions"], found["clean"], found["violating"], found["exhausted"]) == (4, None, True, 0, None)
    assert (found["explored"], found["serial_orders"], found["left_out"]) == (1, 1, 2)


def test_a_budget_that_runs_out_is_no_good_answer(retroact: Retroact, orders: Path) -> None:
    answer = retroact("retro", "o2", "o3", "--explore", "--schedules", "1", at=orders)
    assert answer.code == 1
    assert answer.out.splitlines()[-1] == "not known: nothing went wrong, but 1 schedules ran out before all schedules were looked at"


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (["o0"], 2, "missing: --with. Name the changed code: --with PATH; or look at other schedules: --explore."),
        (["o0", "--explore", "--schedule", "1"], 2, "--explore and --schedule do not go together"),
        (["o0", "--explore", "--preemptions", "few"], 2, "--preemptions 'few' is no bound. Give a number from 0, or all."),
        (["o0", "--explore", "--seconds", "0"], 2, "leaves nothing to be done"),
        (["o0", "--serial", "--with", "shop_fixed.py"], 2, "--serial is for exploring. Add --explore"),
        (["o0", "o1", "--schedule", "1,3"], 2, "it names run 3, and 2 are chosen"),
        (["o0", "--schedule", "1x9"], 2, "at turn 4 run 1 (o0) asks for no transaction"),
        (["nobody", "--explore"], 2, "There is no run 'nobody'"),
    ],
)
def test_what_cannot_be_done_is_refused_with_what_can(retroact: Retroact, orders: Path, words: list[str], code: int, problem: str) -> None:
    answer = retroact("retro", *words, at=orders)
    assert (answer.code, answer.out) == (code, "")
    assert problem in answer.err
