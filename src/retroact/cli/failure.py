"""Errors as a caller of the command line meets them: one line, and an exit code that says whose turn it is.

This module must not know any verb.
"""

from __future__ import annotations

import sys

from retroact.errors import Blame, EngineFault, Misuse, RetroactError

#: The run aborted, the replay diverged, an invariant is broken or a run is undecided, something is wrong with the database.
NO = 1
EXIT: dict[Blame, int] = {Blame.CALLER: 2, Blame.CODE: 3, Blame.TRACE: 4, Blame.ENGINE: 5}


class BadRequest(Misuse):
    """{problem}. {remedy}."""


class Refused(EngineFault):
    """The process that writes the database could not do it: {error}: {message}"""


def report(error: Exception, *, as_json: bool, run: str | None = None, exit_code: int | None = None) -> int:
    """Say what went wrong, where it is looked for: a line on stderr, or an object on stdout. Returns the exit code."""
    known = isinstance(error, RetroactError)
    blame = error.blame if known else Blame.ENGINE
    message = _message(error)
    if as_json:
        import json

        found: dict[str, object] = {
            "error": type(error).__name__,
            "message": message,
            "definite": error.definite if known else True,
            "blame": blame.value,
        }
        if run is not None:
            found["run"] = run
        print(json.dumps(found, ensure_ascii=False))
    else:
        print(f"retroact: {message}", file=sys.stderr)
    return EXIT[blame] if exit_code is None else exit_code


def _message(error: Exception) -> str:
    if isinstance(error, RetroactError):
        return str(error)
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) or type(error).__module__.partition(".")[0] == "apsw":
        return text
    return f"{text}. This was not foreseen; RETROACT_DEBUG=1 shows where it comes from."
