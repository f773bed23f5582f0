"""pdb in the transactions of one schedule: where it stops, what it sees there, going back, and that looking changes nothing."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pexpect
import pytest

from retroact import App
from retroact.cli import turns
from retroact.cli.failure import BadRequest
from retroact.engine.sqlite.history import History
from retroact.function.code import load_path
from retroact.function.registry import Registry
from retroact.replay.shelf import Shelf
from retroact.retroaction.exploration import Options, Play, StepPolicy, Unrecorded
from retroact.retroaction.explorer import Explorer
from retroact.trace.record import RunId

from .conftest import Retroact

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "(retroact) "
BANK = """
from pathlib import Path

from retroact import gather, invariant, rng, step, transaction, workflow


@transaction
def create(conn) -> None:
    conn.execute("create table account (id integer primary key, balance integer, luck integer)")
    conn.execute("insert into account values (1, 100, 0)")


@transaction
def balance(conn) -> int:
    return conn.value("select balance from account where id = 1")


@transaction
def take(conn, n: int) -> int:
    conn.execute("update account set balance = balance - :n, luck = :luck where id = 1", n=n, luck=rng().randrange(1000))
    return left(conn)


def left(conn) -> int:
    return conn.value("select balance from account where id = 1")


@transaction
def stubborn(conn) -> int:
    seen = 0
    try:
        seen = conn.value("select balance from account where id = 1")
    except BaseException:
        pass
    return seen


@step
def tell(text: str) -> str:
    with (Path(__file__).parent / "told").open("a") as file:
        file.write(text)
    return text


@workflow
def withdraw(n: int) -> bool:
    if balance() < n:
        return False
    take(n)
    return True


@workflow
def teller(n: int) -> str:
    withdraw(n)
    return tell(f"{n}{balance()} ")


@workflow
def beside() -> list[int]:
    return gather(take.start(1), take.start(2))


@workflow
async def later(n: int) -> int:
    first = await take(n)
    return first + await take(n)


@workflow
def persistent() -> int:
    return stubborn() + balance()


@invariant
def never_negative(conn) -> bool:
    return conn.value("select min(balance) from account") >= 0
"""
FIXED = (
    BANK.replace("    if balance() < n:\n        return False\n    take(n)\n    return True\n", "    return reserve(n)\n")
    + """

@transaction
def reserve(conn, n: int) -> bool:
    if left(conn) < n:
        return False
    conn.execute("update account set balance = balance - :n where id = 1", n=n)
    return True
"""
)
RACE = "2,1x2,2"


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of each of the workflows, in which nothing went wrong. Not to be changed."""
    folder = tmp_path_factory.mktemp("bank")
    (folder / "bank.py").write_text(BANK)
    (folder / "fixed.py").write_text(FIXED)
    (folder / "retroact.toml").write_text('code = "bank.py"\ndatabase = "bank.db"\n')
    with App(folder / "bank.db", load_path(folder / "bank.py")) as app:
        app.run("create", run="create")
        for run, name, *arguments in (("a", "withdraw", 60), ("b", "withdraw", 70), ("t", "teller", 1), ("u", "teller", 2)):
            app.run(name, *arguments, run=run)
        for name, *arguments in (("beside",), ("later", 4), ("persistent",)):
            app.run(name, *arguments, run=name)
    return folder


@dataclass(frozen=True)
class Talk:
    """What a session at the prompt came to, and the same schedule without one."""

    play: Play | None
    plain: Play
    said: str

    @property
    def stops(self) -> list[str]:
        """The functions that it stopped in."""
        return re.findall(r"^(?:\(retroact\) )*> .*\(\d+\)(\w+)\(\)", self.said, re.MULTILINE)

    def answers(self) -> list[str]:
        """What each command was answered."""
        return [part.strip() for part in self.said.split(PROMPT)[1:]]


Talking = Callable[..., Talk]


@pytest.fixture
def talk(bank: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Talking:
    """Debug a schedule with these commands; where they end is Ctrl-D."""

    def debug(
        runs: str, schedule: str, *commands: str, breaks: tuple[str, ...] = (), options: Options | None = None, code: str = ""
    ) -> Talk:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{command}\n" for command in commands)))
        monkeypatch.setenv("COLUMNS", "160")
        monkeypatch.setenv("HOME", os.devnull)
        monkeypatch.chdir(bank)
        history = History(bank / "bank.db")
        shelf = Shelf(history.trace)
        changed = Registry.of(load_path(bank / code)) if code else None
        wish = turns.Asked(schedule=schedule, options=options or Options(), breaks=breaks, changed=changed)
        ids = [RunId(run) for run in runs.split()]
        try:
            plain = Explorer(history, shelf, changed, replace(wish.options, steps={})).perform(ids, schedule)
            capsys.readouterr()
            explorer = Explorer(history, shelf, changed, wish.options)
            play = turns.perform(history, shelf, explorer, [history.trace.run(run) for run in ids], wish)
            return Talk(play, plain, capsys.readouterr().out)
        finally:
            shelf.close()
            history.close()

    return debug


def test_it_stops_at_the_first_line_of_each_transaction_of_the_schedule(talk: Talking) -> None:
    done = talk("a b", RACE, *["c"] * 4)
    assert done.stops == ["balance", "balance", "take", "take"]
    assert re.findall(r"^── turn (\d) of schedule 2,1x2,2 · run (\w), step (\d)", done.said, re.MULTILINE) == [
        ("1", "b", "1"),
        ("2", "a", "1"),
        ("3", "a", "2"),
        ("4", "b", "2"),
    ]
    assert done.play == done.plain
    assert list(done.plain.broken) == ["never_negative"]
    assert "✗ never_negative does not hold from here on" in done.said


@pytest.mark.parametrize(
    ("runs", "schedule", "stops"),
    [
        ("beside", "1:2,1:1", ["take", "take"]),
        ("later beside", "1,2:2,1,2:1", ["take"] * 4),
        ("persistent", "1", ["stubborn", "balance"]),
    ],
)
def test_workflows_of_every_kind_are_not_stopped_in(talk: Talking, runs: str, schedule: str, stops: list[str]) -> None:
    done = talk(runs, schedule, *["c"] * 6)
    assert done.stops == stops
    assert done.play == done.plain


def test_each_transaction_sees_what_it_sees_in_this_schedule(talk: Talking) -> None:
    ask = "sql select balance from account"
    done = talk("a b", RACE, ask, "c", ask, "c", ask, "n", ask, "c", ask, "p conn.value('select balance from account')", "c")
    seen = [answer.split()[1] for answer in done.answers() if answer.startswith("balance\n")]
    assert seen == ["100", "100", "100", "40", "40"], "in the record the second saw 40, and took nothing"
    assert done.answers()[9] == "40"
    assert re.search(r"since turn 1, the last of its run, others have done:\n +turn 3 +a +take +account\.balance 100 -> 40", done.said)


def test_what_is_asked_at_the_prompt_leaves_nothing_behind(talk: Talking) -> None:
    poking = [
        "p conn.rows('select * from account')",
        "p conn.value('select random()'), rng().random(), rng().random()",
        "p conn.execute('delete from account')",
        "p conn.value('nonsense')",
        "sql delete from account",
        "sql nonsense",
        "sql",
        "p left(conn)",
        "p balance()",
        "p take(1)",
        "p __import__('pathlib').Path('/etc/hostname').read_text()",
        *("who", "statements", "trace", "where in the trace", "nonsense", "jump 3", "restart", "help", "help back", "change x", "w"),
        "sql select balance from account",
    ]
    done = talk(
        "a b", RACE, *poking, "st", *poking, "n", *poking, "c", *poking, "c", "n", *poking, "st", *poking, "c", "st", *poking, "c", "c"
    )
    assert done.play == done.plain
    assert "what is asked beside the body only reads" in done.said
    assert "this only reads" in done.said
    assert "add --with PATH" in done.said


def test_statements_and_who_wrote_what_they_read(talk: Talking) -> None:
    said = talk("a b", RACE, "n", "who", "c", "c", "st", "statements", "n", "c", "n", "who", "st", "statements", "c").answers()
    assert re.search(r"account\[1\] +version 1 +create +create", said[1])
    assert "before statement 1: update account" in said[4]
    assert "not executed yet" in said[5]
    assert re.search(r"account\[1\] +turn 3 +a +take +account\.balance 100 -> 40", said[9])
    assert "account[1].balance 40 -> -30" in said[11]
    again = talk("a b", RACE, "c", "c", "n", "n", "who", "c").answers()
    assert re.search(r"account\[1\] +this transaction itself", again[4])


@pytest.mark.parametrize("breaks", [(), ("left",)])
def test_going_back_and_forth_ends_as_it_does_without(talk: Talking, breaks: tuple[str, ...]) -> None:
    see = "sql select balance from account"
    forth = ["c"] * (0 if breaks else 3)
    back = [see, "back transaction", see, "back transaction", see, "trace", "c", "c", "back", see, "back transaction"]
    done = talk("a b", RACE, *forth, "c", *back, *["c"] * 8, breaks=breaks)
    assert done.play == done.plain
    done = talk("a b", RACE, *forth, "st", "st", see, "back", see, "back", "back transaction", see, *["c"] * 6, breaks=breaks)
    assert done.play == done.plain
    assert "of schedule" in done.said


def test_back_is_the_state_before(talk: Talking) -> None:
    see = "sql select balance from account"
    done = talk("a b", RACE, "c", "c", "c", see, "n", see, "back", see, "back transaction", see, "back transaction", see, *["c"] * 3)
    seen = [answer.split()[1] for answer in done.answers() if answer.startswith("balance\n")]
    assert seen == ["40", "-30", "40", "100", "100"]
    assert done.stops == ["balance", "balance", "take", "take", "take", "take", "take", "balance", "take", "take"]
    assert done.play == done.plain
    refused = talk("a b", RACE, "back", "back transaction", "c", "c", "c", "c")
    assert "this is the beginning of the transaction" in refused.said
    assert "there is no transaction before this" in refused.said


def test_a_body_that_holds_on_is_taken_back_all_the_same(talk: Talking) -> None:
    done = talk("persistent a", "2,1,2,1", "c", "st", "back", "st", "back transaction", *["c"] * 4)
    assert done.stops == ["balance", *["stubborn"] * 4, "balance", "stubborn", "take", "balance"]
    assert done.play == done.plain


def test_a_live_step_is_carried_out_once_however_often_one_goes_back(talk: Talking, bank: Path) -> None:
    options = Options(steps={"tell": StepPolicy(Unrecorded.LIVE)})
    done = talk("t u", "2x3,1", *["c"] * 3, *["back transaction", "c"] * 3, *["c"] * 3, options=options)
    assert done.play is not None
    assert done.play.clean
    assert (bank / "told").read_text().split() == ["139", "237", "238", "137"], "when they were run, and now"


@pytest.mark.parametrize("schedule", [RACE, "1x2,2"])
def test_compared_with_serial_orders(talk: Talking, schedule: str) -> None:
    done = talk("a b", schedule, "c", "n", "back", "c", "c", "back transaction", *["c"] * 4, options=Options(serial=True))
    assert done.play == done.plain
    assert done.plain.serial is (schedule != RACE)
    assert set(done.stops) == {"balance", "take"}


def test_changed_code_and_functions_of_ones_choice(talk: Talking) -> None:
    done = talk("a b", "2,1", "ll", "c", "w", "c", breaks=("left",), code="fixed.py")
    assert done.stops[:2] == ["left", "left"]
    assert "def left(conn)" in done.answers()[0]
    assert re.findall(r"\(\d+\)(\w+)\(\)", done.answers()[2]) == ["reserve", "left"]
    assert done.play == done.plain
    assert done.plain.clean


def test_leaving_says_that_nothing_is_known(talk: Talking) -> None:
    assert talk("a b", RACE, "c", "q").play is None
    assert talk("a b", RACE).play is None


@pytest.mark.parametrize(
    ("name", "problem"), [("withdraw", "is no transaction"), ("tell", "is no transaction"), ("nope", "no function nope")]
)
def test_what_cannot_be_stopped_in_is_refused(talk: Talking, name: str, problem: str) -> None:
    with pytest.raises(BadRequest, match=problem) as caught:
        talk("a b", RACE, breaks=(name,))
    assert "balance, create, left, stubborn, take" in str(caught.value)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--schedule", "1", "--debug"], "--debug asks at a terminal, and there is none. Call it in a terminal; without --debug"),
        (["--schedule", "1", "--debug", "--json"], "a conversation"),
        (["--debug"], "--debug stops in one schedule, and none is named. Name it: --schedule TURNS"),
        (["--explore", "--debug"], "none is named"),
        (["--schedule", "1", "--break", "take"], "nothing stops. Add --debug"),
    ],
)
def test_where_nobody_can_be_asked_it_is_refused(retroact: Retroact, bank: Path, words: list[str], problem: str) -> None:
    answer = retroact("retro", "a", "b", *words, at=bank)
    assert answer.code == 2
    assert problem in answer.out + answer.err


def test_exploring_says_that_one_can_look_into_what_it_found(retroact: Retroact, bank: Path) -> None:
    answer = retroact("retro", "a", "b", "--explore", at=bank)
    assert "with --debug at its end, to stop in each of its transactions" in answer.out


# --- in a real terminal -----------------------------------------------------------------------------------------------------

ENDLESS = """
from retroact import transaction, workflow


@transaction
def first(conn) -> int:
    return 1


@workflow
def waits() -> int:
    n = first()
    print("goes on")
    while 1 < n < 3:
        pass
    return n
"""


@pytest.fixture
def terminal() -> Iterator[Callable[..., Any]]:
    """Start a command line in a terminal."""
    started: list[Any] = []
    paths = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    environ = dict(os.environ, PYTHONPATH=paths, NO_COLOR="1", TERM="xterm", HOME=os.devnull)

    def start(*words: str, at: Path) -> Any:
        command = ["-m", "retroact.cli", *words]
        child = pexpect.spawn(sys.executable, command, cwd=str(at), env=environ, dimensions=(50, 140), encoding="utf-8", timeout=20)  # pyright: ignore[reportArgumentType]
        started.append(child)
        return child

    yield start
    for child in started:
        child.close(force=True)


def says(child: Any, *commands: str) -> list[str]:
    answers: list[str] = []
    for command in commands:
        child.sendline(command)
        child.expect_exact(PROMPT)
        answers.append(child.before.replace("\r", "").partition("\n")[2])
    return answers


def ends(child: Any) -> tuple[str, int]:
    child.expect(pexpect.EOF)
    child.close()
    return child.before.replace("\r", ""), child.exitstatus


def test_a_session_in_a_terminal(terminal: Callable[..., Any], bank: Path) -> None:
    child = terminal("retro", "a", "b", "--schedule", RACE, "--debug", at=bank)
    child.expect_exact(PROMPT)
    assert "It stops in transactions only." in child.before
    assert "balance()" in child.before
    _, _, fourth, asked, back = says(child, "c", "c", "c", "sql select balance from account", "back transaction")
    assert "turn 4 of schedule 2,1x2,2 · run b, step 2" in fourth
    assert asked.split() == ["balance", "40"]
    assert "turn 3 of schedule" in back
    says(child, "c")
    child.sendline("c")
    said, code = ends(child)
    assert "not clean: never_negative; schedule 2,1x2,2" in said
    assert "Traceback" not in said
    assert code == 1


def test_ctrl_c_in_a_workflow_leaves(terminal: Callable[..., Any], tmp_path: Path) -> None:
    """It is not stopped in, and it may never end."""
    (tmp_path / "endless.py").write_text(ENDLESS)
    (tmp_path / "changed.py").write_text(ENDLESS.replace("return 1", "return 2"))
    (tmp_path / "retroact.toml").write_text('code = "endless.py"\ndatabase = "endless.db"\n')
    with App(tmp_path / "endless.db", load_path(tmp_path / "endless.py")) as app:
        assert app.run("waits", run="long") == 1
    child = terminal("retro", "long", "--schedule", "1", "--debug", "--with", "changed.py", at=tmp_path)
    child.expect_exact(PROMPT)
    child.sendline("c")
    child.expect_exact("committed 2")
    child.expect_exact("goes on")
    child.sendintr()
    said, code = ends(child)
    assert "left in turn 2" in said
    assert "Traceback" not in said
    assert code == 1


def test_leaving_a_session(terminal: Callable[..., Any], bank: Path) -> None:
    child = terminal("retro", "a", "b", "--schedule", RACE, "--debug", "--break", "take", at=bank)
    child.expect_exact(PROMPT)
    child.send("\x04")
    said, code = ends(child)
    assert "left in turn 3: what the schedule comes to is not known" in said
    assert "Traceback" not in said
    assert code == 1
