"""pdb on the past: where it stops, what it sees there, going back, and that looking changes nothing."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from retroact import App
from retroact.cli.debugger import Debugger
from retroact.engine.sqlite.history import History
from retroact.function.code import load_path
from retroact.replay.places import Places
from retroact.replay.replayer import Report, chosen_records
from retroact.replay.session import Session
from retroact.replay.shelf import Shelf
from retroact.trace.record import RunId

BANK = """
import time

from retroact import gather, rng, step, transaction, workflow


@transaction
def create(conn) -> None:
    conn.execute("create table account (id integer primary key, name text, balance integer)")
    conn.execute("insert into account values (1, 'ada', 100), (2, 'bob', 100)")


@transaction
def pay(conn, n: int) -> int:
    conn.execute("update account set balance = balance - :n where id = 1", n=n)
    conn.execute("update account set balance = balance + :n + :luck where id = 2", n=n, luck=rng().randrange(10))
    return total(conn)


def total(conn) -> int:
    return conn.value("select sum(balance) from account")


@transaction
def fail(conn) -> None:
    conn.execute("update account set balance = 0")
    raise ValueError("no")


@transaction
def both(conn, n: int) -> int:
    pay(n)
    return pay(n)


@transaction
def chance(conn) -> None:
    for n in range(2):
        conn.execute("update account set balance = balance + :n where id = 1", n=time.perf_counter_ns())


@step
def tell(text: str) -> str:
    return text.upper()


@workflow
def transfer(n: int) -> str:
    before = pay(n)
    tell("half")
    pay(n + 1)
    return tell(f"from {before}")


@workflow
def outer() -> list[str]:
    return [transfer(5), transfer(7)]


@workflow
def beside() -> list[int]:
    return gather(pay.start(1), pay.start(2))


@workflow
async def later(n: int) -> int:
    first = await pay(n)
    return first + await pay(n)
"""


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in which each of the functions has run. Not to be changed."""
    folder = tmp_path_factory.mktemp("bank")
    (folder / "bank.py").write_text(BANK)
    with App(folder / "bank.db", load_path(folder / "bank.py")) as app:
        app.run("create", run="create")
        app.run("transfer", 1, run="one")
        app.run("pay", 50, run="between")
        app.run("transfer", 2, run="two")
        with pytest.raises(ValueError, match="no"):
            app.run("fail", run="failed")
        for name, *arguments in (("both", 3), ("chance",), ("outer",), ("beside",), ("later", 4)):
            app.run(name, *arguments, run=name)
    return folder / "bank.db"


@dataclass(frozen=True)
class Talk:
    """What a session at the prompt came to."""

    report: Report
    said: str
    left: bool

    @property
    def verdicts(self) -> list[str]:
        return [replayed.verdict.value for replayed in self.report.transactions]

    @property
    def stops(self) -> list[str]:
        """The functions that it stopped in."""
        return re.findall(r"^(?:\(retroact\) )*> .*\(\d+\)(\w+)\(\)", self.said, re.MULTILINE)

    def answers(self) -> list[str]:
        """What each command was answered."""
        return [part.strip() for part in self.said.split("(retroact) ")[1:]]


Talking = Callable[..., Talk]


@pytest.fixture
def talk(bank: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Talking:
    """Debug runs with these commands; where they end is Ctrl-D."""

    def debug(runs: str, *commands: str, breaks: tuple[str, ...] = (), path: Path = bank) -> Talk:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{command}\n" for command in commands)))
        monkeypatch.setenv("COLUMNS", "160")
        history = History(path)
        shelf = Shelf(history.trace)
        ids = [RunId(run) for run in runs.split()]
        try:
            capsys.readouterr()
            ran: list[Any] = [*map(history.trace.run, ids), *chosen_records(history, ids)]
            debugger = Debugger(Places(shelf, ran, breaks), readrc=False)
            session = Session(history, shelf, ids, debugger)
            report = debugger.run_session(session)
            return Talk(report, capsys.readouterr().out, session.left)
        finally:
            shelf.close()
            history.close()

    return debug


def test_it_stops_at_the_first_line_of_each_function(talk: Talking) -> None:
    done = talk("one", "c", "c", "c")
    assert done.stops == ["transfer", "pay", "pay"]
    assert '-> conn.execute("update account set balance = balance - :n where id = 1", n=n)' in done.said
    assert 'tell(text="half") is answered from the record: "HALF"' in done.said
    assert done.verdicts == ["identical", "identical"]
    assert [w.verdict.value for w in done.report.workflows] == ["identical"]
    assert not done.left


def test_it_stops_only_where_it_was_told_to(talk: Talking) -> None:
    assert talk("one", *["c"] * 3, breaks=("total",)).stops == ["total", "total"]
    assert talk("one", *["c"] * 3, breaks=("transfer",)).stops == ["transfer"]


@pytest.mark.parametrize(
    ("run", "stops"),
    [
        ("both", ["both", "pay", "pay"]),
        ("outer", ["outer", "transfer", "pay", "pay", "transfer", "pay", "pay"]),
        ("beside", ["beside", "pay", "pay"]),
        ("later", ["later", "pay", "pay"]),
        ("failed", ["fail"]),
        ("one between two", ["transfer", "pay", "pay", "pay", "transfer", "pay", "pay"]),
    ],
)
def test_functions_of_every_kind_are_stopped_in_once(talk: Talking, run: str, stops: list[str]) -> None:
    done = talk(run, *["c"] * 10)
    assert done.stops == stops
    assert set(done.verdicts) == {"identical"}
    assert {w.verdict.value for w in done.report.workflows} <= {"identical"}


def test_the_connection_shows_what_the_transaction_saw_and_wrote_statement_by_statement(talk: Talking) -> None:
    ask = "p conn.value('select balance from account where id = 1')"
    done = talk("one", "c", ask, "n", ask, "statement", "sql select id, balance from account", "q")
    answers = done.answers()
    assert answers[1].startswith("100")
    assert answers[3].startswith("99")
    assert "before statement 2: update account set balance = balance + :n + :luck where id = 2" in answers[4]
    assert answers[5].split() == ["id", "balance", "1", "99", "2", "100"]


def test_each_statement_is_a_stop_when_it_is_asked_for(talk: Talking) -> None:
    done = talk("between", "st", "st", "st", "statements", "c")
    assert re.findall(r"before statement (\d)", done.said) == ["1", "2", "3"]
    assert done.stops == ["pay", "pay", "pay", "total"]
    assert "account[1].balance" in done.answers()[3]
    assert "not executed yet" in done.answers()[3]


def test_the_transaction_is_shown_below_the_line_that_called_it(talk: Talking) -> None:
    stack = talk("one", "c", "w", "q").answers()[1]
    assert re.findall(r"\(\d+\)(\w+)\(\)", stack) == ["transfer", "pay"]
    assert "retroact/" not in stack


def test_what_is_asked_at_the_prompt_leaves_nothing_behind(talk: Talking) -> None:
    """Questions, chance, failures, attempts to write, calls: the replay stays identical, and the state what it was."""
    poking = [
        "p conn.rows('select * from account')",
        "p conn.value('select random()'), rng().random(), rng().random()",
        "p conn.execute('delete from account')",
        "p conn.value('nonsense')",
        "sql delete from account",
        "sql select random()",
        "sql nonsense",
        "sql",
        "p total(conn)",
        "p pay(1)",
        "p tell('x')",
        "p __import__('pathlib').Path('/etc/hostname').read_text()",
        "who",
        "statements",
        "trace",
        "where in the trace",
        "nonsense",
        "jump 3",
        "restart",
        "help",
        "help back",
        "sql select balance from account where id = 1",
    ]
    done = talk("one", *poking, "c", *poking, "n", *poking, "st", *poking, "c", *poking, "c", "c")
    assert done.verdicts == ["identical", "identical"]
    assert [w.verdict.value for w in done.report.workflows] == ["identical"]
    assert done.stops == ["transfer", "pay", "pay", "pay", "pay"]
    assert "what is asked beside the body only reads" in done.said
    assert "this only reads" in done.said
    assert "the record does not have" in done.said
    assert [said.split()[1] for said in done.answers() if said.startswith("balance")] == ["100", "100", "99", "99", "99"]


def test_what_chance_would_give_is_what_it_gives(talk: Talking) -> None:
    """The prompt looks at the body's generator without taking from it."""
    look = "p rng().randrange(10)"
    answers = talk("one", "c", look, look, "n", "st", "p luck if 'luck' in dir() else None", "q").answers()
    given = re.findall(r":luck = (\d)", answers[4])
    assert [answers[1].split()[0], answers[2].split()[0]] == given * 2


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_back_is_the_state_before_the_last_statement(talk: Talking, steps: int) -> None:
    see = "sql select id, balance from account"
    forth = [command for _ in range(steps) for command in ("st", see)]
    back = [command for _ in range(steps - 1) for command in ("back", see)]
    answers = talk("between", *forth, *back, "c").answers()
    seen = [answer.split() for answer in answers if answer.startswith("id")]
    assert seen == seen[:steps] + seen[: steps - 1][::-1]


def test_going_back_and_forth_ends_as_it_does_without(talk: Talking) -> None:
    done = talk("two", "c", "n", "n", "back", "back", "back", "n", "n", "n", "c", "n", "back", "back transaction", "c", "c", "c")
    assert done.verdicts == ["identical", "identical"]
    assert [w.verdict.value for w in done.report.workflows] == ["identical"]
    assert "this is the beginning of the transaction" in done.said


def test_back_by_a_transaction_also_where_nothing_would_stop(talk: Talking) -> None:
    """From the second transaction to the first line of the first, past the workflow that was brought to where it was."""
    done = talk("one", "c", "back transaction", "c", "c", breaks=("pay",))
    assert done.stops == ["pay", "pay", "pay", "pay"]
    assert "transaction 1 of 2" in done.answers()[1]
    assert done.verdicts == ["identical", "identical"]
    done = talk("one between", "c", "back transaction", "back transaction", "q", breaks=("total",))
    assert "there is no transaction before this" in done.said
    assert done.stops == ["total", "total", "pay"]


def test_others_appear_when_they_did(talk: Talking) -> None:
    done = talk("one two", *["c"] * 5, "q")
    assert "it saw version 1" in done.said
    answers = talk("two", "c", "sql select balance from account where id = 1", "q").answers()
    assert answers[1].split() == ["balance", "47"]  # 100 - 1 - 2 of the first transfer, - 50 of the payment between


def test_who_wrote_what_it_read(talk: Talking) -> None:
    said = talk("two", "c", "who", "n", "who", "n", "n", "who", "c").answers()
    assert said[1].startswith("no statement yet")
    assert re.search(r"account\[1\] +\d+ +between +pay +account.balance", said[3])
    assert re.search(r"account\[2\] +this transaction itself", said[6])


def test_a_change_by_hand_is_tried_and_not_compared(talk: Talking) -> None:
    done = talk(
        "one", "change delete from account", "c", "change update account set balance = 0", "sql select sum(balance) from account", "c", "c"
    )
    assert "no transaction is under way here" in done.said
    assert "2 rows changed by hand" in done.said
    assert done.answers()[3].split()[-1] == "0"
    assert done.verdicts == ["recorded-results", "identical"]


def test_a_change_is_taken_back(talk: Talking) -> None:
    assert talk("between", "n", "change delete from account", "back", "c").verdicts == ["identical"]


def test_what_diverges_is_said_so(talk: Talking) -> None:
    done = talk("chance", "n", "n", "back", "c", "c")
    assert done.verdicts == ["diverged"]
    assert "Then T diverged at statement 1" in done.said


@pytest.mark.parametrize("leaving", [["q"], ["quit"], ["exit"], []])
def test_leaving_reports_what_was_replayed(talk: Talking, leaving: list[str]) -> None:
    done = talk("one two", "c", "c", *leaving)
    assert done.left
    assert done.verdicts == ["identical"]


def test_breakpoints_of_ones_own(talk: Talking) -> None:
    done = talk("one", "b total", "b pay, n == 2", "c", "c", "clear 1", "c", "c", breaks=("transfer",))
    assert done.stops == ["transfer", "total", "pay"]


def test_the_recorded_code_is_shown_when_the_file_says_something_else(talk: Talking, bank: Path, tmp_path: Path) -> None:
    for file in bank.parent.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "bank.py").write_text("raise SystemExit\n")
    done = talk("one", "ll", "q", path=tmp_path / "bank.db")
    assert "before = pay(n)" in done.answers()[0]


def test_a_body_may_still_not_reach_past_the_database(tmp_path: Path, talk: Talking) -> None:
    """While the prompt reads files, the body that waits for it must not."""
    (tmp_path / "reach.py").write_text(
        "from retroact import transaction\n\n@transaction\ndef reach(conn) -> str:\n"
        "    try:\n        return open('/etc/hostname').read()\n    except Exception as error:\n        return type(error).__name__\n"
    )
    with App(tmp_path / "reach.db", load_path(tmp_path / "reach.py")) as app:
        assert app.run("reach", run="reach") == "ForbiddenEffect"
    done = talk("reach", "p __import__('pathlib').Path('/etc/hostname').read_text()", "n", "n", "c", path=tmp_path / "reach.db")
    assert done.verdicts == ["identical"]
