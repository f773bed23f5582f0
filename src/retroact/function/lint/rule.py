"""The rules of `retroact lint`: what each finds, how grave it is, and what to do instead. Their ids never change their meaning.

This module must not know how a rule is applied.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import msgspec


class Severity(enum.StrEnum):
    """What a finding means: it will go wrong, it may, or it is good to know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Rule(NamedTuple):
    """One rule. `message` has the thing found as {name}."""

    id: str
    name: str
    severity: Severity
    message: str
    remedy: str


class Finding(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One place in the code where a rule applies."""

    file: str
    #: Line and columns from 1, as editors count; `end` is the column after the last.
    line: int
    column: int
    end: int
    rule: str
    #: The function that runs into it, perhaps through helpers.
    function: str
    message: str
    remedy: str
    severity: Severity


_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE
_STEP = "Do it in a @step, whose result is recorded, and pass the result on."
_RULES = (
    Rule(
        "RT001",
        "bad-allowance",
        _W,
        "this comment {name}",
        "Write `# retroact: allow RT303 because ...` on the line, above it, or on the line of the def.",
    ),
    Rule("RT002", "unreadable", _E, "Python cannot read this: {name}", "Mend it first: nothing of the file was looked at."),
    Rule(
        "RT101",
        "recorded-clock",
        _N,
        "{name} gives the recorded time, which stands still inside a transaction",
        "Nothing to do. `retroact.now()` says so openly.",
    ),
    Rule(
        "RT102",
        "real-clock",
        _W,
        "{name} reads a clock of the machine, and a replay reads another value",
        "Take `retroact.now()` for time; measure durations in a @step.",
    ),
    Rule(
        "RT103",
        "recorded-chance",
        _N,
        "{name} draws from the invocation's recorded chance",
        "Nothing to do. `retroact.rng()` and `retroact.uuid()` say so openly.",
    ),
    Rule(
        "RT104",
        "local-settings",
        _W,
        "{name} depends on the time zone or the locale of the machine, and a replay elsewhere has another",
        "Name the zone: `datetime.now(datetime.UTC)`, or `retroact.now()`, which is in UTC.",
    ),
    Rule(
        "RT105",
        "derived-secret",
        _W,
        "{name} is derived from the run's id, which is no secret: it can be computed by who knows the run",
        "Make secrets in a @step, whose result is recorded, and pass them on; for ids take `retroact.uuid()`.",
    ),
    Rule(
        "RT106",
        "unrecorded-chance",
        _W,
        "{name} has a generator of its own, and a replay draws other numbers",
        "Seed it from the recorded chance: `numpy.random.default_rng(retroact.rng().getrandbits(64))`.",
    ),
    Rule(
        "RT107",
        "this-machine",
        _W,
        "{name} tells of this process or machine, and a replay runs in another",
        f"Pass it in as an argument. {_STEP}",
    ),
    Rule(
        "RT108",
        "address-or-hash",
        _W,
        "{name} differs from process to process",
        "Name things by what they are (a key, a number); hash text with hashlib.",
    ),
    Rule(
        "RT109",
        "blocking-sleep",
        _W,
        "{name} holds the database in a transaction, and in a workflow begins anew after a crash",
        "Sleep in a @workflow with `retroact.sleep(seconds)`, which is durable.",
    ),
    Rule("RT201", "files", _E, "{name} reaches for files, which no rollback undoes and no replay finds as they were", _STEP),
    Rule("RT202", "network", _E, "{name} reaches for the network, which no rollback undoes and no replay asks again", _STEP),
    Rule("RT203", "processes", _E, "{name} starts or steers a process, which no rollback undoes", _STEP),
    Rule(
        "RT204",
        "threads",
        _E,
        "{name} does something beside the body, in an order that nothing records",
        "Let a @workflow start calls beside one another: `gather(reserve.start(1), reserve.start(2))`.",
    ),
    Rule(
        "RT205",
        "tasks",
        _W,
        "{name} lets the event loop decide in which order calls are made and numbered",
        "Make the calls in the body, and wait for them together: `await gather_async(reserve(1), reserve(2))`.",
    ),
    Rule(
        "RT206",
        "another-database",
        _E,
        "{name} opens a database beside the one that the platform commits",
        f"Use the `conn` that the function is given. {_STEP}",
    ),
    Rule(
        "RT207",
        "environment",
        _W,
        "{name} is not recorded, and a replay has other settings",
        f"Pass the setting in as an argument. {_STEP}",
    ),
    Rule("RT208", "input", _E, "{name} waits for a person, whose answer is not recorded", _STEP),
    Rule(
        "RT209",
        "print",
        _N,
        "{name} is printed again by every retry, replay and verification",
        "Fine for looking; log what counts in a @step.",
    ),
    Rule(
        "RT301",
        "module-state",
        _E,
        "{name} changes what the module remembers: no rollback undoes it, and a replay begins without it",
        "Keep it in a table, or pass it in and return it.",
    ),
    Rule(
        "RT302",
        "reads-module-state",
        _W,
        "{name} is changed while the program runs, and a replay finds it as it was at the start",
        "Keep it in a table, or pass it in as an argument.",
    ),
    Rule(
        "RT303",
        "order-of-a-set",
        _W,
        "{name} is gone through in an order that the hash seed of the process decides",
        "Go through `sorted(...)` of it, or keep it as a list or a dict.",
    ),
    Rule(
        "RT304",
        "connection-escapes",
        _E,
        "{name} leaves the function, and is of no use after it: its transaction has ended",
        "Return the rows; a helper is given the connection as an argument.",
    ),
    Rule(
        "RT401",
        "sql-from-values",
        _W,
        "{name} makes SQL from values, which may then be read as SQL; and each text is a statement of its own",
        'Give values as parameters: conn.execute("... where item = :item", item=item).',
    ),
    Rule("RT402", "recorded-sql", _N, "{name} answers from the recorded moment", "Nothing to do."),
    Rule(
        "RT403",
        "no-order",
        _N,
        "{name} has no ORDER BY, and its rows are used in the order in which they come",
        "Add an ORDER BY: without one the order may change with the plan, and a replay is at best order-only.",
    ),
)
RULES: dict[str, Rule] = {rule.id: rule for rule in _RULES}
