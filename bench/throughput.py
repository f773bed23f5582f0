"""W1, W2, W3 and W5: closed loops of recorded functions and of workflows, against the hand-written forms."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench import workload
from bench.adapters.base import Adapter
from bench.adapters.retroact import Adapter as Retroact
from bench.harness import Call, Goal, Measured, Options, at_least, below, figure, interleave
from bench.limits import FORMS, Handwritten

#: The keys of a run are f"{RUN}-{k}-{i}"; every database is a fresh one.
RUN = "bench"
OURS = "ours"
#: Makes the call that is measured, given a system and a generator for each caller.
Make = Callable[[Adapter, list[random.Random]], Call]
#: Looks at what a system has left in its database.
Check = Callable[[Path | str, Measured], dict[str, Any]]


class Side:
    """A system on a fresh database of its own: a file, or the address of a server's."""

    def __init__(self, path: Path | str, make: type[Any], callers: int, **opts: Any) -> None:
        self.path = path
        if isinstance(path, Path):
            workload.create(path)
        self.adapter: Adapter = make(f"sqlite:///{path}" if isinstance(path, Path) else path, callers, **opts)
        self.adapter.setup()


@contextmanager
def sides(options: Options, callers: int) -> Iterator[dict[str, Side]]:
    """Ours, and the hand-written forms for so many callers, in one folder."""
    if options.engine == "postgres":
        with _sides_on_a_server(callers) as found:
            yield found
        return
    forms = FORMS if callers > 1 else FORMS[:1]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(options.workspace()))
        found = {OURS: Side(folder / "ours.db", Retroact, callers)}
        stack.callback(found[OURS].adapter.close)
        for form in forms:
            found[form] = Side(folder / f"{form}.db", Handwritten, callers, form=form)
            stack.callback(found[form].adapter.close)
        yield found


@contextmanager
def _sides_on_a_server(callers: int) -> Iterator[dict[str, Side]]:
    from bench import limits_postgres  # noqa: PLC0415 - its driver is an extra
    from bench.server import databases  # noqa: PLC0415

    with ExitStack() as stack:
        made = stack.enter_context(databases())
        found = {OURS: Side(made.make("bench_ours"), Retroact, callers)}
        stack.callback(found[OURS].adapter.close)
        for form in limits_postgres.FORMS:
            found[form] = Side(made.make(f"bench_{form}"), limits_postgres.Handwritten, callers, form=form)
            stack.callback(found[form].adapter.close)
        yield found


def measure(options: Options, callers: int, make: Make, check: Check) -> tuple[Measured, Measured, dict[str, Any]]:
    """Ours, the faster hand-written form, and what the check of the results found."""
    with sides(options, callers) as found:
        calls = {name: make(side.adapter, [random.Random(7 + k) for k in range(callers)]) for name, side in found.items()}
        measured = interleave(calls, callers, options)
        checks = {name: check(side.path, measured[name]) for name, side in found.items()}
        commits = getattr(found[OURS].adapter, "commits", 0)
    best = max((name for name in measured if name != OURS), key=lambda name: measured[name].rate)
    more = {**checks[OURS], "limit_form": best, **latencies(measured[OURS]), **latencies(measured[best], "limit_")}
    more["rounds"] = [round(rate) for rate in measured[OURS].rates]
    more["limit_rounds"] = [round(rate) for rate in measured[best].rates]
    more["commits_per_call"] = round(commits / max(measured[OURS].completed, 1), 2)
    return measured[OURS], measured[best], more


def latencies(measured: Measured, prefix: str = "") -> dict[str, Any]:
    """The percentiles of a system."""
    return {f"{prefix}p50_ms": measured.ms(0.5), f"{prefix}p99_ms": measured.ms(0.99)}


def _call_bump(adapter: Adapter, chance: list[random.Random]) -> Call:
    return lambda k, i: adapter.run_tx(f"{RUN}-{k}-{i}", "bump", chance[k].randint(1, workload.ACCOUNTS))


def _call_hot(adapter: Adapter, chance: list[random.Random]) -> Call:  # noqa: ARG001 - one row, no choice
    return lambda k, i: adapter.run_tx(f"{RUN}-{k}-{i}", "bump", 1)


def _call_checkout(adapter: Adapter, chance: list[random.Random]) -> Call:
    def call(k: int, i: int) -> object:
        key = f"{RUN}-{k}-{i}"
        return adapter.run_wf(key, "checkout", key, chance[k].randint(1, workload.ITEMS), chance[k].randint(1, workload.ACCOUNTS))

    return call


def _call_workflow(name: str) -> Make:
    return lambda adapter, _: lambda k, i: adapter.run_wf(f"{RUN}-{k}-{i}", name, i)


def _check_accounts(path: Path | str, measured: Measured) -> dict[str, Any]:
    counted, total = workload.ask(path, "select sum(n), sum(bal) from acct")
    lost = counted - (total - workload.BALANCE * workload.ACCOUNTS)
    assert counted == measured.completed, f"{counted} transactions committed, {measured.completed} were acknowledged"
    return {"lost_updates": lost}


def _check_orders(path: Path | str, measured: Measured) -> dict[str, Any]:
    stock = workload.STOCK * workload.ITEMS - workload.ask(path, "select sum(stock) from item")[0]
    paid = workload.BALANCE * workload.ACCOUNTS - workload.ask(path, "select sum(bal) from acct")[0]
    orders = workload.ask(path, "select count(*) from orders")[0]
    return {"consistent": stock == paid == orders == measured.completed, "orders": orders}


def _check_nothing(path: Path | str, measured: Measured) -> dict[str, Any]:  # noqa: ARG001 - there is nothing to see
    return {}


def _rates(name: str, make: Make, check: Check, goals: Mapping[int, Goal], on_a_server: Mapping[int, Goal] | None = None) -> Any:
    def run(callers: int, options: Options) -> Iterator[dict[str, Any]]:
        ours, limit, more = measure(options, callers, make, check)
        yield figure(
            name,
            callers,
            ours.rate,
            limit.rate,
            (on_a_server or goals if options.engine == "postgres" else goals).get(callers),
            unit="calls/s",
            **more,
        )

    return run


EVEN = dict.fromkeys(range(1, 257), at_least(1))
w1 = _rates("w1", _call_bump, _check_accounts, {1: at_least(0.8), 64: at_least(3)}, EVEN)
w2 = _rates("w2", _call_checkout, _check_orders, {1: at_least(1), 32: at_least(2)}, EVEN)
w3 = _rates("w3", _call_workflow("five_steps"), _check_nothing, {1: at_least(1), 8: at_least(1)}, EVEN)
w1hot = _rates("w1hot", _call_hot, _check_accounts, dict.fromkeys(range(1, 257), below(1, "lost_updates", "lost")))


def w5(callers: int, options: Options) -> Iterator[dict[str, Any]]:
    """Latencies: less is better."""
    ours, limit, more = measure(options, callers, _call_workflow("trivial"), _check_nothing)
    goal = below(2 if options.engine == "postgres" else 1, "ours", "ms")
    yield figure("w5", callers, ours.ms(0.5), limit.ms(0.5), goal, less_is_better=True, unit="p50 ms", **more)
