"""From the words of a command line to an exit code: finds the verb, parses its options, calls it, reports what went wrong.

This is the one place that catches everything: nothing that happens is shown as a traceback unless it is asked for. It must not know
what any verb does, and imports none before it is called: `retroact --help` is there at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from retroact.cli.failure import BadRequest, report
from retroact.cli.verbs import READING, VERBS, Verb, overview

#: Ctrl-C, or the reader of our output went away.
INTERRUPTED = 130
DEBUG = "--debug-errors"
PORTABLE = ".retro"


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors like all others."""

    def error(self, message: str) -> NoReturn:
        problem = message.replace("the following arguments are required", "missing").replace("argument ", "", 1)
        raise BadRequest(problem=problem, remedy=f"`{self.prog} --help` tells how it is called")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (without the program's name) and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = DEBUG in words or os.environ.get("RETROACT_DEBUG", "") not in ("", "0")
    words = [word for word in words if word != DEBUG]
    try:
        code = _run(words, alone=argv is None)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _forget_output()
        return INTERRUPTED
    except Exception as error:  # the boundary: whatever it is becomes one line and an exit code
        if debug:
            raise
        return report(error, as_json="--json" in words)
    return code


def _run(words: list[str], *, alone: bool = False) -> int:
    """`alone`: this process has nothing else to do, so it may begin anew."""
    if not words or words[0] in ("-h", "--help", "help"):
        if words[1:] and words[1] in VERBS:
            return _run([words[1], "--help"])
        print(overview(), file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"retroact {version('retroact')}")
        return 0
    verb = VERBS.get(words[0])
    if verb is None:
        raise _unknown(words[0])
    if verb.seeded and alone:
        from retroact.cli.seeded import begin_anew

        if (code := begin_anew()) is not None:
            return code
    module = importlib.import_module(f"retroact.cli.{verb.module}")
    try:
        args = _parser(verb, module).parse_args(_file_first(verb, words[1:]))
    except SystemExit as done:  # --help
        return int(done.code or 0)
    args.alone = alone
    return getattr(module, f"call{verb.suffix}")(args)


def _file_first(verb: Verb, words: list[str]) -> list[str]:
    """A portable trace that is named first is the database that is meant."""
    named = verb.name in READING and words and words[0].endswith(PORTABLE) and not words[0].startswith("-")
    return ["--db", *words] if named else words


def _parser(verb: Verb, module: ModuleType) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"retroact {verb.name}",
        description=verb.summary[0].upper() + verb.summary[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    getattr(module, f"options{verb.suffix}")(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON value on standard output, and nothing else")
    parser.add_argument(DEBUG, action="store_true", help="show where an error comes from (also RETROACT_DEBUG=1)")
    return parser


def _unknown(word: str) -> BadRequest:
    import difflib

    if word.startswith("-"):
        return BadRequest(
            problem=f"an option comes after its verb, and {word!r} has none before it", remedy="`retroact --help` lists the verbs"
        )
    near = difflib.get_close_matches(word, VERBS, n=1)
    hint = f"Did you mean `retroact {near[0]}`? " if near else ""
    return BadRequest(problem=f"there is no verb {word!r}", remedy=f"{hint}`retroact --help` lists the verbs")


def _forget_output() -> None:
    """Nobody reads any more: what is still buffered must not fail again when Python exits."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return
