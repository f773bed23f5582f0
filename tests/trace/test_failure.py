"""Exceptions as values, and back: the class that was raised is the class that is raised again."""

from __future__ import annotations

import sys
import types
from typing import Any

import apsw
import msgspec
import pytest

from retroact.errors import BadArguments, RunFailed, StepTimeout
from retroact.trace.codec import encode_json
from retroact.trace.failure import describe, revive
from retroact.trace.record import Failure, RunId

RUN = RunId("r")
HERE = {__name__: sys.modules[__name__]}


class Plain(Exception):
    pass


class Wordy(Exception):
    """Its argument is not what it keeps."""

    def __init__(self, item: str) -> None:
        super().__init__(f"{item} is sold out")
        self.item = item


class Demanding(Exception):
    def __init__(self, *, item: str) -> None:
        super().__init__(f"{item} is sold out")


class Two(Exception):
    def __init__(self, item: str, wanted: int) -> None:
        super().__init__(f"{wanted} {item}")


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError


class NoException:
    pass


def test_what_is_kept() -> None:
    assert describe(Plain("a", 1), statement=2, sqlstate="BusyError") == Failure(
        error=f"{__name__}.Plain", message="('a', 1)", arguments=("a", 1), sqlstate="BusyError", statement=2
    )
    assert describe(KeyError("a")).error == "builtins.KeyError"
    assert describe(Plain(object())).arguments is None


def stored(error: Exception) -> Failure:
    return msgspec.json.decode(encode_json(describe(error)), type=Failure)


@pytest.mark.parametrize(
    "error",
    [
        Plain(),
        Plain("a"),
        Plain("a", 1),
        Plain(object()),
        Plain("\ud800"),
        Wordy("lamp"),
        Demanding(item="lamp"),
        Two("lamp", 5),
        KeyError("a"),
        FileNotFoundError(2, "No such file", "shop.db"),
        OSError("plain"),
        ZeroDivisionError("division by zero"),
        StopIteration("x"),
        apsw.ConstraintError("UNIQUE constraint failed"),
        StepTimeout(function="charge", seconds=3, key="r.1"),
        BadArguments(function="f", problem="p", signature="s"),
        Mute(),
    ],
)
def test_the_class_and_the_message_come_back(error: Exception) -> None:
    """What takes other arguments than it keeps came back as RunFailed, so a workflow that caught it live did not catch it on resume."""
    failure = stored(error)
    back = revive(failure, RUN, HERE)
    assert type(back) is type(error)
    if not isinstance(error, Mute):
        assert str(back) == failure.message


def test_arguments_come_back_where_they_can() -> None:
    back = revive(stored(Plain("a", [1, None])), RUN, HERE)
    assert back.args == ("a", [1, None])


@pytest.mark.parametrize(
    "name",
    [
        "nowhere.Error",
        "builtins.Missing",
        "builtins.int",
        "builtins.KeyboardInterrupt",
        f"{__name__}.NoException",
        f"{__name__}.test.<locals>.Gone",
        "os.system",
        "",
        "Error",
    ],
)
def test_a_class_that_is_not_at_hand_is_reported(name: str) -> None:
    back = revive(Failure(error=name, message="m", arguments=("x",)), RUN, HERE)
    assert type(back) is RunFailed
    assert str(back) == f"Run 'r' failed: {name}: m"


def test_a_class_that_cannot_be_made_is_reported() -> None:
    back = revive(stored(ExceptionGroup("several", [ValueError("a")])), RUN, {})
    assert type(back) is RunFailed
    assert "several (1 sub-exception)" in str(back)


def test_the_class_of_the_given_modules_comes_first() -> None:
    """Two versions of the code, side by side: each gets its own class."""
    other: Any = types.ModuleType("shop")
    other.Plain = type("Plain", (Exception,), {"__module__": "shop@1"})
    assert describe(other.Plain()).error == "shop.Plain"
    assert type(revive(Failure(error="shop.Plain", message=""), RUN, {"shop": other})) is other.Plain
