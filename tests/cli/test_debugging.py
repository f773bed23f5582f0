"""The real command in a real terminal, and with a client of the debug adapter protocol."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
from tests.cli.conftest import Retroact

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "retroact.cli"]
PROMPT = "(retroact) "


def environment() -> dict[str, str]:
    paths = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    return dict(os.environ, PYTHONPATH=paths, NO_COLOR="1", TERM="xterm", HOME=os.devnull)


@pytest.fixture
def terminal(past: Path) -> Iterator[Callable[..., Any]]:
    """Start a command line in a terminal."""
    started: list[Any] = []

    def start(*words: str, at: Path = past) -> Any:
        child = pexpect.spawn(
            COMMAND[0], [*COMMAND[1:], *words], cwd=str(at), env=environment(), dimensions=(50, 140), encoding="utf-8", timeout=20
        )
        started.append(child)
        return child

    yield start
    for child in started:
        child.close(force=True)


def says(child: Any, *commands: str) -> list[str]:
    """What the terminal shows in answer to each command."""
    answers: list[str] = []
    for command in commands:
        child.sendline(command)
        child.expect_exact(PROMPT)
        answers.append(child.before.replace("\r", "").partition("\n")[2])
    return answers


def ends(child: Any) -> tuple[str, int]:
    child.expect(pexpect.EOF)
    child.close()
    return child.before.replace("\r", ""), child.exitstatus


def test_a_session_in_a_terminal(terminal: Callable[..., Any]) -> None:
    child = terminal("replay", "one", "--debug")
    child.expect_exact(PROMPT)
    first, asked, second, now, back = says(
        child, "c", "sql select * from inventory", "c", "p conn.value('select available from inventory')", "back transaction"
    )
    assert 'check(item="apple")' in first
    assert asked.split() == ["item", "available", "apple", "2"]
    assert 'update(item="apple")' in second
    assert now.strip() == "2"
    assert "transaction 1 of 2" in back
    says(child, "c")
    child.sendline("c")
    said, code = ends(child)
    assert "2 transactions: 2 identical" in said
    assert code == 0


@pytest.mark.parametrize(("leave", "code"), [("\x04", 0), ("q\n", 0)])
def test_leaving_a_session(terminal: Callable[..., Any], leave: str, code: int) -> None:
    child = terminal("replay", "one", "last", "--debug", "--break", "update")
    child.expect_exact(PROMPT)
    child.send(leave)
    said, exit_code = ends(child)
    assert "left after 1 of 3 transactions" in said
    assert "Traceback" not in said
    assert exit_code == code


def test_leaving_after_a_divergence_says_so(terminal: Callable[..., Any]) -> None:
    child = terminal("replay", "chance", "one", "--debug", "--break", "chance")
    child.expect_exact(PROMPT)
    child.sendline("c")
    said, code = ends(child)
    assert "Then T diverged" in said
    assert code == 1


ENDLESS = """
from retroact import transaction


@transaction
def count(conn, to: int) -> int:
    n = 0
    while n < to:
        n += 1
    return n
"""


def test_ctrl_c_stops_a_body_that_runs_and_not_the_session(terminal: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text(ENDLESS)
    (tmp_path / "retroact.toml").write_text('code = "endless.py"\ndatabase = "endless.db"\n')
    subprocess.run(
        [*COMMAND, "run", "count", "[1000000]", "--run", "long"], cwd=tmp_path, env=environment(), check=True, capture_output=True
    )
    child = terminal("replay", "long", "--debug", at=tmp_path)
    child.expect_exact(PROMPT)
    child.sendintr()
    child.expect_exact(PROMPT)
    says(child, "tbreak 9", "c")
    child.sendline("c")
    child.expect_exact("c\r\n")
    child.sendintr()
    child.expect_exact(PROMPT)
    assert "count()" in child.before
    counted, code = says(child, "p 0 < n < to")[0], 0
    assert counted.strip() == "True"
    child.sendline("q")
    assert ends(child)[1] == code


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["one", "--debug"], "asks at a terminal"),
        (["one", "--debug", "--json"], "a conversation"),
        (["one", "--break", "check"], "nothing stops"),
        (["one", "--debug", "--listen"], "Give one of them"),
        (["one", "--listen", "0.0.0.0:5678"], "only this machine"),
        (["one", "--listen", "127.0.0.1:no"], "is no port"),
        (["one", "--listen", "127.0.0.1:0", "--break", "nothing"], "There are: "),
        (["one", "--listen", "127.0.0.1:0", "--break", "charge"], "answered from the record"),
    ],
)
def test_what_cannot_be_debugged_is_refused(retroact: Retroact, words: list[str], says: str) -> None:
    answer = retroact("replay", *words)
    assert answer.code == 2
    assert says in answer.out + answer.err
    assert "Traceback" not in answer.err


def test_without_debugpy_it_says_what_to_install(past: Path, tmp_path: Path) -> None:
    (tmp_path / "debugpy.py").write_text("raise ImportError\n")
    environ = environment()
    environ["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{environ['PYTHONPATH']}"
    done = subprocess.run(
        [*COMMAND, "replay", "one", "--listen"], cwd=past, env=environ, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert "pip install 'retroact[debug]'" in done.stderr


class Editor:
    """As much of an editor as it takes: a client of the debug adapter protocol."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=30)
        self._file = self._socket.makefile("rb")
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def send(self, command: str, **arguments: Any) -> int:
        self._number += 1
        body = json.dumps({"seq": self._number, "type": "request", "command": command, "arguments": arguments}).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        return self._number

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        number = self.send(command, **arguments)
        return self._until(lambda m: m["type"] == "response" and m["request_seq"] == number)

    def event(self, *names: str) -> dict[str, Any]:
        for at, event in enumerate(self.events):
            if event["event"] in names:
                return self.events.pop(at)
        return self._until(lambda m: m["type"] == "event" and m["event"] in names)

    def attach(self) -> None:
        self.ask("initialize", adapterID="test", pathFormat="path", linesStartAt1=True, columnsStartAt1=True)
        self.send("attach", justMyCode=True)
        self.event("initialized")
        self.ask("configurationDone")

    def stopped(self) -> Stop | None:
        event = self.event("stopped", "terminated")
        if event["event"] == "terminated":
            return None
        thread = event["body"]["threadId"]
        frames = self.ask("stackTrace", threadId=thread)["body"]["stackFrames"]
        return Stop(self, thread, frames)

    def _until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while True:
            size = 0
            while line := self._file.readline().strip():
                if line.lower().startswith(b"content-length"):
                    size = int(line.split(b":")[1])
            assert size, "the debugger has gone"
            message = json.loads(self._file.read(size))
            if wanted(message):
                return message
            if message["type"] == "event":
                self.events.append(message)


class Stop:
    """Where the debugger stopped."""

    def __init__(self, editor: Editor, thread: int, frames: list[dict[str, Any]]) -> None:
        self._editor, self._thread = editor, thread
        self.function, self.line = frames[0]["name"], frames[0]["line"]
        self.functions = [frame["name"] for frame in frames]
        self._frame = frames[0]["id"]

    def evaluate(self, expression: str) -> str:
        answer = self._editor.ask("evaluate", expression=expression, frameId=self._frame, context="repl")
        return answer["body"]["result"] if answer["success"] else answer["message"]

    def go_on(self) -> Stop | None:
        self._editor.ask("continue", threadId=self._thread)
        return self._editor.stopped()


@pytest.fixture
def editor(past: Path) -> Iterator[Callable[..., tuple[Editor, Any]]]:
    """Start a replay that listens, and attach an editor to it."""
    with contextlib.ExitStack() as stack:

        def start(*words: str) -> tuple[Editor, Any]:
            command = [*COMMAND, "replay", *words, "--listen", "127.0.0.1:0"]
            process = subprocess.Popen(command, cwd=past, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stderr is not None
            waiting = next((line for line in process.stderr if "waiting" in line), "")
            found = re.search(r"at ([\d.]+):(\d+)", waiting)
            assert found, waiting
            client = Editor((found[1], int(found[2])))
            stack.callback(client.close)
            client.attach()
            return client, process

        yield start


def test_an_editor_sees_the_same(editor: Callable[..., tuple[Editor, Any]]) -> None:
    client, process = editor("one", "--json")
    see = "conn.value('select available from inventory')"
    stop = client.stopped()
    assert stop is not None
    assert stop.function == "checkout"
    stop = stop.go_on()
    assert stop is not None
    assert (stop.function, stop.evaluate(see), stop.evaluate("debug.sql('select available from inventory')")) == ("check", "2", "[(2,)]")
    assert "checkout" in stop.functions
    assert "only reads" in stop.evaluate("conn.execute('delete from inventory')")
    stop = stop.go_on()
    assert stop is not None
    assert (stop.function, stop.evaluate(see)) == ("update", "2")
    stop.evaluate("debug.back_transaction()")
    stop = stop.go_on()
    assert stop is not None
    assert (stop.function, stop.evaluate(see)) == ("check", "2")
    stop = stop.go_on()
    assert stop is not None
    assert stop.function == "update"
    assert stop.go_on() is None
    client.close()
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert json.loads(said)["verdicts"]["identical"] == 2


def test_an_editor_that_goes_away_stops_nobody(editor: Callable[..., tuple[Editor, Any]]) -> None:
    client, process = editor("one", "--break", "check")
    stop = client.stopped()
    assert stop is not None
    assert stop.function == "check"
    client.ask("disconnect")
    client.close()
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "2 transactions: 2 identical" in said
