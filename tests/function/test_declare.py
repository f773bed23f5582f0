"""Declarations: values without side effects, and what is refused at once."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import pytest

from retroact import invariant, step, transaction, workflow
from retroact.errors import BadDeclaration, OutsideRun
from retroact.function.declare import Function, Options
from retroact.function.kind import Kind

STEP_OPTIONS = {"retries": 3, "backoff": 1, "backoff_factor": 3.0, "backoff_max": 9, "timeout": 2.5}


def plain(conn: Any, item: str = "lamp") -> str:
    """Says what it was given."""
    return item


async def waiting(item: str) -> str:
    return item


def generating() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("declared", "kind", "options"),
    [
        (transaction(plain), Kind.TRANSACTION, Options()),
        (transaction()(plain), Kind.TRANSACTION, Options()),
        (transaction(read_only=True)(plain), Kind.TRANSACTION, Options(read_only=True)),
        (step(plain), Kind.STEP, Options()),
        (step(**STEP_OPTIONS)(plain), Kind.STEP, Options(**STEP_OPTIONS)),
        (step(timeout=None)(plain), Kind.STEP, Options()),
        (workflow(plain), Kind.WORKFLOW, Options()),
        (workflow()(plain), Kind.WORKFLOW, Options()),
        (invariant(plain), Kind.INVARIANT, Options()),
    ],
)
def test_a_declaration_is_a_value(declared: Any, kind: Kind, options: Options) -> None:
    assert isinstance(declared, Function)
    assert (declared.kind, declared.options, declared.name, declared.module) == (kind, options, "plain", __name__)
    assert declared.body is plain
    assert declared.__doc__ == "Says what it was given."
    assert inspect.signature(declared) == inspect.signature(plain)
    assert repr(declared) == f"<{kind.value} plain>"
    assert not declared.is_async


def test_another_name() -> None:
    for declare in (transaction, step, workflow, invariant):
        assert declare(name="other")(plain).name == "other"


def test_async_def_is_seen() -> None:
    assert step(waiting).is_async
    assert workflow(waiting).is_async


def test_links_point_backwards() -> None:
    send = step(plain)
    unsend = send.compensation(name="unsend", retries=2)(plain)
    find = send.inquiry(waiting)
    assert (unsend.kind, unsend.undoes, unsend.name, unsend.options) == (Kind.STEP, send, "unsend", Options(retries=2))
    assert (find.kind, find.inquires, find.options) == (Kind.STEP, send, Options())
    assert transaction(plain).compensation(plain).kind is Kind.TRANSACTION
    assert workflow(plain).compensation(plain).kind is Kind.WORKFLOW


@pytest.mark.parametrize(
    ("declare", "problem"),
    [
        (lambda: step(retries=-1)(plain), "plain: retries and back-off are numbers from 0, timeout is a positive number."),
        (lambda: step(backoff=-0.1)(plain), "numbers from 0"),
        (lambda: step(timeout=0)(plain), "timeout is a positive number"),
        (lambda: step(retries="3")(plain), "numbers from 0"),  # pyright: ignore
        (lambda: step(retries=None)(plain), "numbers from 0"),  # pyright: ignore
        (lambda: step(read_only=True)(plain), "a step has no option read_only; its options are: retries, backoff"),  # pyright: ignore
        (lambda: step(retry=1)(plain), "a step has no option retry"),  # pyright: ignore
        (lambda: transaction(plain).compensation(retries=1)(plain), "a transaction has no option retries; its options are: read_only"),
        (lambda: workflow(plain).compensation(timeout=1)(plain), "a workflow has no option timeout; its options are: none"),
        (lambda: invariant(plain).compensation(plain), "nothing to compensate"),
        (lambda: transaction(plain).inquiry(plain), "only a step has an inquiry"),
        (lambda: workflow(plain).inquiry(plain), "only a step has an inquiry"),
        (lambda: transaction(step(plain)), "plain: it is a step already; declare a function once."),
        (lambda: step(plain).compensation(step(plain)), "it is a step already"),
        (lambda: step(int), "@step decorates a def"),
        (lambda: workflow(5), "@workflow decorates a def"),  # pyright: ignore
        (lambda: transaction(functools.partial(plain, item="a")), "@transaction decorates a def"),
        (lambda: step(generating), "generating: it yields; return a list instead."),
        (lambda: step(plain).inquiry(generating), "it yields"),
    ],
)
def test_what_cannot_be_is_refused_at_once(declare: Any, problem: str) -> None:
    with pytest.raises(BadDeclaration) as refused:
        declare()
    assert problem in str(refused.value)


def test_what_a_body_carries_does_not_hide_what_is_declared() -> None:
    """A decorator left `options` on the function, and it took the place of the declared ones."""

    def carrying(conn: Any) -> None: ...

    carrying.options = "the body's own"  # pyright: ignore
    carrying.extra = 1  # pyright: ignore
    declared = transaction(carrying)
    assert declared.options == Options()
    assert declared.extra == 1  # pyright: ignore


@pytest.mark.parametrize("call", [lambda f: f("a"), lambda f: f.start("a")])
@pytest.mark.parametrize("declare", [transaction, step, workflow])
def test_outside_of_a_run_it_says_how_to_run(declare: Any, call: Any) -> None:
    with pytest.raises(OutsideRun, match=r"Call app.run\(plain, \.\.\.\) to run it as a .* or plain\.body\(\.\.\.\)"):
        call(declare(plain))
    assert declare(plain).body(None, "a") == "a"


def test_a_fingerprint_is_of_the_body() -> None:
    assert transaction(plain).fingerprint == step(plain).fingerprint
    assert len(transaction(plain).fingerprint) == 16
