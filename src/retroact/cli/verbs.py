"""The verbs, with the module that carries each out and the line that says what it does.

This module must not know how a verb is carried out, nor import anything for it: help is printed from here.
"""

from __future__ import annotations

from typing import NamedTuple


class Verb(NamedTuple):
    """One verb. Its module has `options(parser)` and `call(args) -> exit code`, each followed by `suffix`."""

    name: str
    summary: str
    module: str
    suffix: str = ""
    #: It runs functions, whose sets have the order that the hash seed of the process gives them: it has one that is recorded.
    seeded: bool = False


GROUPS: tuple[tuple[str, tuple[Verb, ...]], ...] = (
    (
        "Begin",
        (
            Verb("init", "write a small project to start from", "init"),
            Verb("lint", "say what in the code keeps functions from doing the same again", "lint"),
            Verb("demo", "an oversold shop: see the bug happen, replay it, prove the fix", "demonstrate"),
        ),
    ),
    (
        "Run",
        (
            Verb("run", "run a function to completion, exactly once", "running", seeded=True),
            Verb("cancel", "stop a run at its next call", "continuing", "_cancel"),
            Verb("resume", "go on with a run that was cancelled or stopped", "continuing", "_resume", seeded=True),
            Verb("recover", "go on with every run that was interrupted", "continuing", "_recover", seeded=True),
        ),
    ),
    (
        "Look",
        (
            Verb("runs", "list runs, newest first", "runs"),
            Verb("trace", "show what a run did, step by step", "trace"),
            Verb("asof", "answer SQL about any past state", "asof"),
            Verb("doctor", "check the installation, the project and the database", "doctor"),
        ),
    ),
    (
        "Look after",
        (
            Verb("migrate", "bring the schema up to date, each migration a recorded transaction", "migrate"),
            Verb("compact", "drop what is no longer kept of the past", "compact"),
        ),
    ),
    (
        "Go back",
        (
            Verb("replay", "run the past again with the code it ran with, and compare", "replay", seeded=True),
            Verb("retro", "run the past again with changed code: what would have been?", "retro", seeded=True),
            Verb("export", "write runs into one file that can be run again elsewhere", "export", seeded=True),
        ),
    ),
)
#: What can be asked of a portable trace: its file may be named first, in place of --db.
READING = frozenset({"runs", "trace", "asof", "replay", "retro"})
VERBS: dict[str, Verb] = {verb.name: verb for _, verbs in GROUPS for verb in verbs}


def overview() -> str:
    """What `retroact --help` prints."""
    lines = [
        "usage: retroact VERB ... [--json]",
        "",
        "Functions that are transactions: run them exactly once, go back to any of them, change the code and run the past again.",
    ]
    for title, verbs in GROUPS:
        lines += ["", f"{title}:", *(f"  {verb.name:<8}  {verb.summary}" for verb in verbs)]
    lines += [
        "",
        "`retroact VERB --help` tells the options of a verb. The project is told by retroact.toml in this folder or above it,",
        "or by --code FILE and --db FILE; a file that `export` wrote is named first: `retroact replay bug.retro --all`.",
        "Exit codes: 0 done; 1 the answer is no; 2 the call was wrong; 3 the code is at fault;",
        "4 the trace cannot answer; 5 the database or the machine failed.",
    ]
    return "\n".join(lines)
