"""The command line as a whole: help, exit codes, pipes, what it imports. Real processes where a process is the point."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import Retroact

from retroact.cli import main
from retroact.cli.verbs import VERBS

SRC = Path(__file__).resolve().parents[2] / "src"


def process(*words: str, at: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SRC), **environment}
    return subprocess.run(
        [sys.executable, "-m", "retroact.cli", *words], cwd=at, env=environment, capture_output=True, text=True, timeout=30, check=False
    )


def test_help_lists_every_verb_on_a_line_of_its_own(retroact: Retroact) -> None:
    answer = retroact("--help")
    assert answer.code == 0
    assert set(re.findall(r"^ {2,6}([a-z]+) {2,}\S", answer.out, re.MULTILINE)) == set(VERBS)
    assert max(map(len, answer.out.splitlines())) <= 120


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_json(retroact: Retroact, verb: str) -> None:
    answer = retroact(verb, "--help")
    assert (answer.code, "--json" in answer.out) == (0, True)


@pytest.mark.parametrize(
    ("words", "says"), [(["rnu"], "Did you mean `retroact run`"), (["xyzzy"], "no verb"), (["--json"], "after its verb")]
)
def test_an_unknown_verb(retroact: Retroact, words: list[str], says: str) -> None:
    answer = retroact(*words)
    assert answer.code == 2
    assert says in answer.err + answer.out


def test_no_verb_prints_the_help_on_standard_error(retroact: Retroact) -> None:
    answer = retroact()
    assert (answer.code, answer.out, "replay" in answer.err) == (2, "", True)


def test_exit_codes_of_a_process(past: Path) -> None:
    good = process("runs", "--json", at=past)
    assert (good.returncode, good.stderr) == (0, "")
    assert {run["run"] for run in json.loads(good.stdout)} >= {"one", "oversold"}
    no = process("replay", "chance", "--json", at=past)
    assert (no.returncode, json.loads(no.stdout)["faithful"]) == (1, False)
    wrong = process("trace", "nobody", "--json", at=past)
    assert (wrong.returncode, json.loads(wrong.stdout)["error"]) == (2, "UnknownRun")
    assert (wrong.returncode, wrong.stderr) == (2, "")


def test_a_traceback_is_shown_only_when_asked_for(past: Path) -> None:
    assert "Traceback" not in process("trace", "nobody", at=past).stderr
    assert "Traceback" in process("trace", "nobody", "--debug-errors", at=past).stderr
    assert "Traceback" in process("trace", "nobody", at=past, RETROACT_DEBUG="1").stderr


def test_a_reader_that_goes_away_is_no_error(past: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "retroact.cli", "runs"],
            cwd=past,
            env={**os.environ, "PYTHONPATH": str(SRC)},
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (130, "")


def test_an_interrupt_is_quiet(retroact: Retroact, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("retroact.cli.runs.call", interrupted)
    answer = retroact("runs")
    assert (answer.code, answer.out, answer.err) == (130, "", "")


def test_what_was_not_foreseen_is_still_one_line(retroact: Retroact, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("retroact.cli.runs.call", broken)
    answer = retroact("runs")
    assert (answer.code, answer.err) == (
        5,
        "retroact: ZeroDivisionError: oh. This was not foreseen; RETROACT_DEBUG=1 shows where it comes from.\n",
    )


def test_colour_is_for_terminals_that_want_it(past: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(past)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert main(["runs"]) == 0
    assert "\x1b" not in capsys.readouterr().out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(["runs"]) == 0
    assert "\x1b[32mcommitted" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["runs"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_the_command_line_itself_imports_nothing_heavy(past: Path) -> None:
    """Start-up stays short: with a bare package around it, help needs no engine, and a list of runs no App."""
    code = (
        "import sys, types; m = types.ModuleType('retroact'); m.__path__ = [sys.argv.pop(1)]; sys.modules['retroact'] = m\n"
        "from retroact.cli import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    )
    for words, heavy in (
        (["--help"], {"apsw", "msgspec", "asyncio", "json"}),
        (["runs"], {"asyncio", "concurrent.futures", "retroact.app"}),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, str(SRC / "retroact"), *words], cwd=past, capture_output=True, text=True, timeout=30, check=True
        )
        assert not heavy & set(done.stderr.split()), heavy & set(done.stderr.split())
