"""The examples do what they are there for: recorded on real threads, replayed, fixed on the trace, and found from a clean trace."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from pathlib import Path
from typing import Any

import pytest

from retroact.app import App
from retroact.function.code import load_path
from retroact.retroaction.exploration import Options

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@dataclasses.dataclass(frozen=True)
class Example:
    """One of the applications: how it is opened, what two requests race, and where."""

    name: str
    opening: tuple[Any, ...]
    requests: tuple[tuple[Any, ...], tuple[Any, ...]]
    #: The function before which both requests meet when the bug is recorded.
    meeting: str
    invariant: str
    #: What the smallest schedule is explained by.
    because: str

    def path(self, which: str = "") -> Path:
        return EXAMPLES / self.name / f"{self.name}{which}.py"


FORUM = Example(
    "forum",
    ("open_forum",),
    (("subscribe", 7, 2), ("subscribe", 7, 2)),
    "insert_subscription",
    "subscribed_once",
    "because is_subscribed of {last} (turn 1) read what insert_subscription of {first} (turn 3) then changed "
    "(+ forum_subscriptions 1), and {last} went by what it had read.",
)
ONCALL = Example(
    "oncall",
    ("open_ward", ["alice", "bob"]),
    (("leave", "alice"), ("leave", "bob")),
    "go_off_call",
    "somebody_on_call",
    "because count_on_call of {last} (turn 1) read what go_off_call of {first} (turn 3) then changed "
    "(doctors.on_call 1 -> 0), and {last} went by what it had read.",
)
examples = pytest.mark.parametrize("example", [FORUM, ONCALL], ids=lambda example: example.name)


def run(app: App, name: str, request: tuple[Any, ...]) -> None:
    with contextlib.suppress(Exception):  # an honest refusal
        app.run(*request, run=name)


def race(app: App, module: Any, example: Example) -> None:
    """Both requests on real threads; where any scheduler may put a stop, there is one."""
    function, barrier = getattr(module, example.meeting), threading.Barrier(2)

    def met(*args: Any) -> Any:
        barrier.wait()
        return function(*args)

    module.__dict__[example.meeting] = met
    threads = [threading.Thread(target=run, args=(app, name, r)) for name, r in zip("ab", example.requests, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    module.__dict__[example.meeting] = function


@examples
def test_recorded_replayed_and_fixed_on_the_trace(example: Example, tmp_path: Path) -> None:
    module = load_path(example.path())
    with App(tmp_path / "example.db", module) as app:
        app.run(*example.opening)
        race(app, module, example)
        assert app.replay(["a", "b"]).faithful
        difference = app.retroact(["a", "b"], example.path("_fixed"))
        assert [v.invariant for v in difference.violations_before] == [example.invariant]
        assert difference.violations_after == ()
        assert difference.clean


@examples
def test_found_from_a_trace_in_which_nothing_went_wrong(example: Example, tmp_path: Path) -> None:
    with App(tmp_path / "example.db", load_path(example.path())) as app:
        app.run(*example.opening)
        for name, request in zip("ab", example.requests, strict=True):
            run(app, name, request)
        found = app.explore(["a", "b"])
        worst = found.worst
        assert worst is not None
        assert (list(worst.broken), worst.preemptions, found.serial_violating) == ([example.invariant], 1, 0)
        last = worst.taken[0].root
        assert worst.explanation[-1] == example.because.format(last=last, first="a" if last == "b" else "b")
        again = app.perform(["a", "b"], str(worst.schedule))
        assert (again.broken, again.taken) == (worst.broken, worst.taken)

        fixed = app.explore(["a", "b"], example.path("_fixed"))
        assert fixed.clean
        assert fixed.explored == fixed.serial_orders


def test_whoever_lists_the_subscribers_fails_after_the_race(tmp_path: Path) -> None:
    """The second bug is a consequence of the first: a third run fails in some schedules, and no serial order explains that."""
    with App(tmp_path / "example.db", load_path(FORUM.path())) as app:
        app.run("open_forum")
        for name, request in zip("ab", FORUM.requests, strict=True):
            run(app, name, request)
        assert app.run("subscribers", 2, run="list") == [7]
        found = app.explore(["a", "b", "list"], options=Options(serial=True))
        failing = app.perform(["a", "b", "list"], "1,2x2,1,3")
        assert [e.outcome.failure is not None for e in failing.endings if e.outcome] == [False, False, True]
        assert found.by_name.keys() == {"subscribed_once", "not serial"}
