"""Setting up, being killed, and servers that go away: with real processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.engine.postgres import body
from tests.engine.postgres.body import AFTERWARDS, HOOKS
from tests.postgres import Databases

from retroact import App
from retroact.engine.contract import RunStart
from retroact.errors import BadArguments, EngineFault, NewerDatabase, NoProject, PastNotKept, Unreachable
from retroact.testing import ManualClock
from retroact.testing.postgres import PostgresServer
from retroact.trace.record import RunId
from retroact.trace.retention import Retention

ROOT = Path(__file__).resolve().parents[3]


def ask(url: str, sql: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as conn:
        return conn.execute(sql.encode()).fetchall()


def do(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        for sql in statements:
            conn.execute(sql.encode())


# --- setting up ------------------------------------------------------------------------------------------------------------


def test_many_may_start_at_once(postgres: str) -> None:
    with ThreadPoolExecutor(6) as starters:
        for app in starters.map(lambda _: App(postgres, body.FUNCTIONS), range(6)):
            app.close()
    assert ask(postgres, "select value from retroact.meta") == [("1",)]
    assert ask(postgres, "select count(*) from retroact.function where name = 'increment'") == [(1,)]


def test_a_newer_trace_is_left_alone(postgres: str) -> None:
    App(postgres, body.FUNCTIONS).close()
    do(postgres, "update retroact.meta set value = '99'")
    with pytest.raises(NewerDatabase, match="schema 99; this one knows up to 1"):
        App(postgres, body.FUNCTIONS)


def test_the_trace_needs_no_superuser(postgres: str) -> None:
    """A role that may not create schemas is told what its owner has to do, and that is enough."""
    role = f"plain_{os.getpid()}"
    name = ask(postgres, "select current_database()")[0][0]
    do(postgres, f"drop role if exists {role}", f"create role {role} login")
    url = postgres.replace("postgresql://postgres@", f"postgresql://{role}@")
    try:
        with pytest.raises(NoProject, match="create schema retroact authorization ROLE"):
            App(url, body.FUNCTIONS)
        do(postgres, f"create schema retroact authorization {role}", f"grant create on schema public to {role}")
        with App(url, body.FUNCTIONS) as app:
            app.run(body.create)
            assert app.run(body.counts, "a") == 1
    finally:
        do(postgres, f"drop owned by {role} cascade", f"revoke all on database {name} from {role}", f"drop role {role}")


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("postgresql://127.0.0.1:1/nowhere", Unreachable, r"postgresql://127.0.0.1:1/nowhere cannot be reached.*refused"),
        ("postgresql://u:secret@127.0.0.1:1/nowhere", Unreachable, r"^postgresql://u@127.0.0.1:1/nowhere cannot"),
        ("postgresql://host:port/x", (NoProject, Unreachable), "postgresql|port"),
        ("postgresql://h/x?nonsense=1", NoProject, 'cannot be read.*nonsense.*Write it as postgresql://user@host:5432/database'),
        ("mysql://h/x", NoProject, "no engine for mysql://.*postgresql://"),
    ],
)  # fmt: skip
def test_an_address_that_is_no_use(url: str, error: Any, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        App(url, body.FUNCTIONS)
    assert "secret" not in str(caught.value)


def test_without_its_driver_it_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['psycopg'] = None\nfrom retroact.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "runs", "--db", "postgresql://127.0.0.1/x"]
    told: dict[str, Any] = {"env": {"PYTHONPATH": str(ROOT / "src")}, "cwd": tmp_path, "timeout": 60}
    done = subprocess.run(command, capture_output=True, text=True, check=False, **told)
    assert done.returncode == 2
    assert "pip install 'retroact[postgres]'" in done.stderr


def test_a_run_id_that_postgres_cannot_hold(postgres: str) -> None:
    with App(postgres, body.FUNCTIONS) as app:
        app.run(body.create)
        for run in ("a\x00b", "\ud800"):
            with pytest.raises(BadArguments, match="the run id"):
                app.run(body.increment, "a", run=run)
        assert app.run(body.increment, "a", run="größe 'n' \\ more") == 1
        assert app.trace.run(RunId("größe 'n' \\ more")).state == "committed"


def test_the_past_is_refused_as_long_as_it_is_not_kept(postgres: str, tmp_path: Path) -> None:
    with App(postgres, body.FUNCTIONS) as app:
        app.run(body.create, run="r")
        for past in (
            lambda: app.history,
            lambda: app.replay(["r"]),
            lambda: app.look_at("r"),
            lambda: app.retroact(["r"], app.registry),
            lambda: app.explore(["r"]),
            lambda: app.perform(["r"], "r"),
            lambda: app.export(["r"], tmp_path / "r.retro"),
            app.compact,
            app.vacuum,
            lambda: app.migrate(tmp_path),
            lambda: app.verifications,
            app.verify,
        ):
            with pytest.raises(PastNotKept, match="not kept on Postgres yet"):
                past()
        assert app.trouble is None
    assert [option for option in ({"verify_rate": 0.5}, {"retention": Retention(age="30d")}) if not _refused(postgres, **option)] == []


def _refused(url: str, **options: Any) -> bool:
    """Whether an App with these options is refused before it is opened."""
    with pytest.raises(PastNotKept, match="not kept on Postgres yet"):
        App(url, body.FUNCTIONS, **options)
    return True


# --- being killed ------------------------------------------------------------------------------------------------------------


def test_a_killed_client_loses_nothing_and_repeats_nothing(postgres: str) -> None:
    """Two generations are killed in the middle; the third goes on. Every run that anybody was told of has had its effect once."""
    HOOKS.reset()
    AFTERWARDS.reset()
    with App(postgres, body.FUNCTIONS) as app:
        app.run(body.create)
    acknowledged: set[str] = set()
    for lines in (40, 160):
        command = [sys.executable, "-m", "tests.engine.postgres.child", postgres, "4"]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
        with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _, line in zip(range(lines), child.stdout, strict=False):
                acknowledged.add(line.strip())
            os.kill(child.pid, signal.SIGKILL)
            acknowledged.update(line.strip() for line in child.stdout if line.endswith("\n"))
    with App(postgres, body.FUNCTIONS) as app:
        for handle in app.recovered:
            handle.result(30)
        assert acknowledged <= {run.run for run in app.runs(most=10_000) if run.state == "committed"}
        for run in sorted(acknowledged)[:20]:
            number, i = run.split("-")
            app.run(body.counts if int(i) % 2 else body.increment, "ab"[int(number) % 2], run=run)
    assert ask(postgres, "select (select sum(n) from counter) = (select count(*) from retroact.records where function = 'increment')") == [
        (True,)
    ]
    assert ask(postgres, "select count(*) from retroact.runs where state not in ('committed', 'aborted')") == [(0,)]


def test_who_lives_keeps_its_workflows_and_who_has_died_leaves_them(postgres: str) -> None:
    """A second App leaves alone what the first is doing. When the first is gone, one of two that come takes over, not both."""
    HOOKS.reset()
    gate = threading.Event()
    AFTERWARDS.reset(lambda: gate.wait(30))
    with App(postgres, body.FUNCTIONS) as first:
        first.run(body.create)
        handle = first.start(body.counts, "a", run="w")
        with App(postgres, body.FUNCTIONS) as second:
            assert second.recovered == []
            assert second.trace.find_run(RunId("w")).state == "running"  # pyright: ignore
            assert second.run(body.counts, "a", run="beside") == 2
        gate.set()
        assert handle.result(30) == 1
        first.engine.begin_run(RunStart(run=RunId("left"), function=body.counts, arguments=b'{"name":"a"}', began_us=1))
    with App(postgres, body.FUNCTIONS, recover=False) as one, App(postgres, body.FUNCTIONS, recover=False) as other:
        taken = [*one.recover(), *other.recover()]
        assert [(handle.run, handle.result(30)) for handle in taken] == [("left", 3)]


def test_a_server_that_crashes_under_load_loses_nothing_and_repeats_nothing(databases: Databases) -> None:
    """Stopped at once and started again, twice, while four callers count. They are told nothing of it but the time it takes."""
    HOOKS.reset()
    AFTERWARDS.reset()
    done: list[str] = []
    enough = threading.Event()
    problems: list[BaseException] = []
    with PostgresServer() as server, App(server.url(), body.FUNCTIONS) as app:
        app.run(body.create)

        def work(number: int) -> None:
            try:
                for i in range(100_000):
                    if enough.is_set():
                        return
                    app.run(body.counts if i % 2 else body.increment, "ab"[number % 2], run=f"{number}-{i}")
                    done.append(f"{number}-{i}")
            except BaseException as error:  # noqa: BLE001 - raised again in the test's thread
                problems.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for goal in (60, 120):
            while len(done) < goal and not problems:
                enough.wait(0.01)
            server.stop("immediate")
            server.start()
        while len(done) < 180 and not problems:
            enough.wait(0.01)
        enough.set()
        for thread in threads:
            thread.join()
        assert not problems
        counted, recorded = ask(
            server.url(), "select (select sum(n) from counter), (select count(*) from retroact.records where function = 'increment')"
        )[0]
        assert counted == recorded == len(done)


def test_a_server_that_stays_away_is_told_of(databases: Databases) -> None:
    with PostgresServer() as server, App(server.url(), body.FUNCTIONS, clock=ManualClock()) as app:
        HOOKS.reset()
        app.run(body.create)
        server.stop("immediate")
        with pytest.raises(EngineFault, match="cannot be reached"):
            app.run(body.increment, "a", run="r")
        server.start()
        assert app.run(body.increment, "a", run="r") == 1
        app.engine.settle()
        held = "select count(*) from pg_locks where locktype = 'advisory' and classid = 1919251570 and granted"
        assert ask(server.url(), held) == [(1,)], "its workflows are its own again"


# --- the page for users ------------------------------------------------------------------------------------------------------


def test_the_examples_of_the_documentation_run(postgres: str, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "postgres.md").read_text()
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page, re.DOTALL)):
        path = tmp_path / f"example{number}.py"
        path.write_text(block.replace("postgresql://shop@localhost/shop", postgres))
        done = subprocess.run(
            [sys.executable, str(path)], env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
    for block in re.findall(r"```sql\n(select.*?)```", page, re.DOTALL):
        for statement in block.split(";")[:-1]:
            assert ask(postgres, statement) is not None


def test_the_rights_that_the_documentation_names_are_enough(postgres: str) -> None:
    HOOKS.reset()
    AFTERWARDS.reset()
    role = f"worker_{os.getpid()}"
    with App(postgres, body.FUNCTIONS) as app:
        app.run(body.create)
        app.engine.begin_run(RunStart(run=RunId("left"), function=body.counts, arguments=b'{"name":"a"}', began_us=1))
    page = (ROOT / "docs" / "postgres.md").read_text()
    [grants] = [block for block in re.findall(r"```sql\n(grant.*?)```", page, re.DOTALL) if "to worker" in block]
    do(postgres, f"drop role if exists {role}", f"create role {role} login", *grants.replace("to worker", f"to {role}").split(";")[:-1])
    do(postgres, f"grant select, insert, update, delete on all tables in schema public to {role}")
    try:
        with App(postgres.replace("postgresql://postgres@", f"postgresql://{role}@"), body.FUNCTIONS) as app:
            assert [handle.result(30) for handle in app.recovered] == [1]
            assert app.run(body.counts, "a", run="w") == 2
            assert app.run(body.report) == [2, 0]
            app.engine.begin_run(RunStart(run=RunId("x"), function=body.counts, arguments=b'{"name":"a"}', began_us=1))
            app.cancel("x")
            assert app.resume("x").result(30) == 3
            app.engine.settle()
            assert app.trouble is None
    finally:
        do(postgres, f"drop owned by {role} cascade", f"drop role {role}")
