"""Registries: functions by name, as values; two of them know nothing of each other."""

from __future__ import annotations

import types
from typing import Any

import pytest

from retroact import Registry, invariant, step, transaction, workflow
from retroact.errors import BadDeclaration, DuplicateFunction, UnknownFunction


def body(conn: Any) -> None: ...


def ask(key: str) -> None: ...


def named(name: str, declare: Any = transaction) -> Any:
    return declare(name=name)(body)


def test_functions_are_found_by_name() -> None:
    reserve, charge, whole = named("reserve"), named("charge", step), named("whole", invariant)
    registry = Registry.of([reserve, [charge]], whole)
    assert registry.get("reserve") is reserve
    assert "charge" in registry
    assert "nothing" not in registry
    assert list(registry) == [reserve, charge, whole]
    assert registry.invariants == (whole,)


def test_a_module_gives_what_it_holds() -> None:
    module = types.ModuleType("shop")
    module.reserve = module.alias = reserve = named("reserve")  # pyright: ignore
    module.number = 5  # pyright: ignore
    assert list(Registry.of(module, reserve)) == [reserve]


def test_what_belongs_together_is_joined() -> None:
    send = named("send", step)
    unsend, find = send.compensation(name="unsend")(body), send.inquiry(body)
    registry = Registry.of([find, unsend, send])
    assert registry.compensation_of(send) is unsend
    assert registry.inquiry_of(send) is find
    assert registry.compensation_of(unsend) is None
    assert registry.inquiry_of(unsend) is None


def test_an_unknown_function_says_which_are_known() -> None:
    with pytest.raises(UnknownFunction, match=r"No function named 'c' is registered\. Known functions: a, b\. Check the spelling"):
        Registry.of(named("b"), named("a")).get("c")
    with pytest.raises(UnknownFunction, match="Known functions: none"):
        Registry.of().get("c")


def test_the_same_name_with_other_code_is_unknown() -> None:
    here, there = named("reserve"), named("reserve")
    registry = Registry.of(here)
    registry.must_have(here)
    with pytest.raises(UnknownFunction, match="another version"):
        registry.must_have(there)


send = named("send", step)


@pytest.mark.parametrize(
    ("sources", "error", "message"),
    [
        ((named("a"), named("a")), DuplicateFunction, "Two functions are named 'a'"),
        ((named("a"), named("a", workflow)), DuplicateFunction, r'@workflow\(name="..."\)'),
        ((send, send.inquiry(body), send.compensation(body)), DuplicateFunction, "Two functions are named 'body'"),
        (
            (send, send.compensation(name="x")(body), send.compensation(name="y")(body)),
            BadDeclaration,
            "send: it has two compensations: x and y; keep one",
        ),
        ((send, send.inquiry(ask), send.inquiry(body)), BadDeclaration, "two inquiries: ask and body; keep one"),
        ((5,), BadDeclaration, "functions are given as a module, as Function values or as a list"),
        (("shop",), BadDeclaration, "'shop': functions are given as a module"),
        ((["shop"],), BadDeclaration, "functions are given as a module"),
        ((body,), BadDeclaration, "functions are given as a module"),
    ],
)
def test_what_cannot_be_registered(sources: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Registry.of(*sources)
