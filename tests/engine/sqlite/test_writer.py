"""Group commit: who is acknowledged when, what a failure takes with it, and that nobody is ever left waiting."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from retroact.engine.sqlite import writer as module
from retroact.engine.sqlite.writer import Job, Writer
from retroact.errors import Closed, CommitFailed

PATIENCE = 20


class Bench:
    """A writer on a table of numbers, which writes down what it was told about commits."""

    def __init__(self, path: Path, synchronous: str = "off") -> None:
        self.path = path
        self.database = apsw.Connection(str(path))
        self.database.pragma("journal_mode", "wal")
        self.database.pragma("synchronous", synchronous)
        self.database.execute("create table number (n)")
        #: "commit", "loss" or "maintain", as they happened, and what was done.
        self.events: list[Any] = []
        self.writer = Writer(
            self.database,
            path=str(path),
            on_commit=lambda: self.events.append("commit"),
            on_loss=lambda: self.events.append("loss"),
            maintain=lambda: None,
        )

    def add(self, n: int) -> int:
        self.database.execute("insert into number values (?)", (n,))
        self.events.append(n)
        return n

    def submit(self, n: int, **options: Any) -> Job[int]:
        return self.writer.submit(lambda: self.add(n), f"add {n}", **options)

    def held(self) -> list[int]:
        """What the file holds, for everybody else."""
        reader = apsw.Connection(str(self.path))
        try:
            return [n for (n,) in reader.execute("select n from number order by rowid")]
        finally:
            reader.close()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(module, "GROUP_SECONDS", PATIENCE)  # a group ends when the line is empty, however busy the machine
    bench = Bench(tmp_path / "numbers.db")
    yield bench
    bench.writer.close()
    bench.database.close()


class Crowd:
    """Callers on threads of their own. `block` keeps the writer busy until `release`, so that the others form one group."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.threads: list[threading.Thread] = []
        #: What the thread that leads met instead of going on.
        self.interrupts: list[BaseException] = []
        self._free = threading.Event()

    def call(self, work: Callable[[], Any]) -> None:
        thread = threading.Thread(target=work)
        self.threads.append(thread)
        thread.start()

    def block(self) -> None:
        inside = threading.Event()

        def wait() -> None:
            inside.set()
            self._free.wait(PATIENCE)

        def lead() -> None:
            try:
                self.bench.writer.submit(wait, "block")
            except KeyboardInterrupt as interrupt:
                self.interrupts.append(interrupt)

        self.call(lead)
        assert inside.wait(PATIENCE)

    def queue(self, *works: Callable[[], Any]) -> list[Job[Any]]:
        """Each work in line behind the one before."""
        jobs: list[Job[Any]] = []
        for work in works:
            waiting = len(self.bench.writer._queue)
            self.call(lambda work=work: jobs.append(self.bench.writer.submit(work, "queued")))
            while len(self.bench.writer._queue) == waiting:
                pass
        return jobs

    def release(self) -> None:
        self._free.set()
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a caller was left waiting"


def refuse() -> None:
    raise LookupError("refused")


def test_nobody_is_acknowledged_before_the_commit(bench: Bench) -> None:
    """Whoever returns finds his number in the file, read by somebody else."""
    lost: list[int] = []

    def caller(first: int) -> None:
        for n in range(first, first + 30):
            bench.submit(n).result()
            if n not in bench.held():
                lost.append(n)

    crowd = Crowd(bench)
    for first in range(0, 240, 30):
        crowd.call(lambda first=first: caller(first))
    crowd.release()
    assert not lost
    assert bench.held() == [event for event in bench.events if isinstance(event, int)], "the order of execution is the serial order"


def test_callers_that_come_together_share_a_commit(bench: Bench) -> None:
    crowd = Crowd(bench)
    crowd.block()
    jobs = crowd.queue(*(lambda n=n: bench.add(n) for n in range(10)))
    crowd.release()
    assert bench.events == [*range(10), "commit"]
    assert sorted(job.result() for job in jobs) == list(range(10))


def test_one_that_fails_does_not_fail_the_others(bench: Bench) -> None:
    crowd = Crowd(bench)
    crowd.block()
    jobs = crowd.queue(lambda: bench.add(1), refuse, lambda: bench.add(2))
    crowd.release()
    assert bench.held() == [1, 2]
    assert [type(job.error) for job in jobs if job.error] == [LookupError]
    assert "loss" not in bench.events


def test_a_failed_commit_fails_its_whole_group_and_nothing_else(bench: Bench) -> None:
    """The disk is full: no job of the group happened, each is told so; when there is room again, work goes on."""
    bench.submit(0)
    pages = bench.database.pragma("page_count")
    bench.database.pragma("max_page_count", pages)
    crowd = Crowd(bench)
    crowd.block()
    big = lambda: bench.database.execute("insert into number values (zeroblob(100000))")  # noqa: E731
    jobs = crowd.queue(lambda: bench.add(1), big, refuse, lambda: bench.add(2))
    crowd.release()
    bench.database.pragma("max_page_count", 10_000)
    errors = {type(job.error) for job in jobs if job.error}
    assert errors <= {CommitFailed, LookupError}
    assert CommitFailed in errors
    acknowledged = [job.value for job in jobs if job.error is None]
    assert bench.held() == [0, *acknowledged]
    assert bench.submit(3).result() == 3


def test_a_commit_that_itself_fails(bench: Bench) -> None:
    """A deferred constraint is what SQLite refuses only at COMMIT."""
    bench.database.execute("pragma foreign_keys = on").fetchall()
    bench.database.execute("create table child (n references parent deferrable initially deferred); create table parent (n primary key)")
    crowd = Crowd(bench)
    crowd.block()
    jobs = crowd.queue(lambda: bench.add(1), lambda: bench.database.execute("insert into child values (1)"))
    crowd.release()
    assert [type(job.error) for job in jobs] == [CommitFailed, CommitFailed]
    assert bench.held() == []
    assert bench.submit(2).result() == 2
    assert bench.held() == [2]


def test_what_was_committed_by_a_cut_is_not_taken_back(bench: Bench) -> None:
    """A change of the schema ends the group. What comes after it may still be lost; what came before has been acknowledged."""

    def cutting() -> int:
        bench.writer.cut()
        return bench.add(1)

    def losing() -> None:
        bench.database.execute("rollback")
        raise apsw.FullError("disk full")

    crowd = Crowd(bench)
    crowd.block()
    jobs = crowd.queue(cutting, lambda: bench.add(2), losing)
    crowd.release()
    by_value = {job.value: job.error for job in jobs}
    assert bench.held() == [1]
    assert by_value[1] is None
    assert isinstance(by_value[2], CommitFailed)


@pytest.mark.parametrize("whose", ["own", "another's"])
def test_an_interrupt_stops_the_job_that_it_hit_and_its_thread(bench: Bench, whose: str) -> None:
    """Ctrl-C arrives in the thread that leads, maybe while it executes somebody else's job."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    seen: list[BaseException | None] = []
    crowd = Crowd(bench)

    def lead() -> None:
        try:
            bench.writer.submit(interrupted if whose == "own" else lambda: bench.add(1), "lead").result()
        except BaseException as error:  # noqa: BLE001 - what the interrupted thread saw is what is tested
            seen.append(error)

    # The lead is taken by hand, so that a known caller has it when the line forms.
    bench.writer._lead_lock.acquire()
    crowd.call(lead)
    while not bench.writer._queue:
        pass
    jobs = crowd.queue(lambda: bench.add(2), interrupted if whose == "another's" else lambda: bench.add(3), lambda: bench.add(4))
    bench.writer._hand_over()
    crowd.release()
    assert [type(error) for error in seen] == [KeyboardInterrupt]
    errors = [type(job.error) for job in jobs if job.error]
    if whose == "own":
        assert bench.held() == [2, 3, 4]
        assert errors == []
    else:
        assert bench.held() == [1, 2, 4]
        assert errors == [CommitFailed]
    assert bench.submit(5).result() == 5


def test_an_interrupt_between_two_jobs_leaves_nobody_waiting(bench: Bench) -> None:
    """It may also come anywhere else, say just after the COMMIT: then who is committed is acknowledged."""

    def interrupt() -> None:
        bench.writer._on_commit = lambda: bench.events.append("commit")
        raise KeyboardInterrupt

    bench.writer._on_commit = interrupt
    crowd = Crowd(bench)
    crowd.block()
    jobs = crowd.queue(*(lambda n=n: bench.add(n) for n in range(4)))
    crowd.release()
    assert [type(error) for error in crowd.interrupts] == [KeyboardInterrupt]
    assert [job.error for job in jobs] == [None] * 4
    assert bench.held() == [0, 1, 2, 3]
    assert "commit" in bench.events, "the page log was never told of the commit"
    assert bench.submit(4).result() == 4


def test_a_caller_that_is_interrupted_in_line_does_not_take_the_lead_with_it(bench: Bench) -> None:
    """Ctrl-C hits a caller that waits for its turn. If it left with the lead in its hands, everybody would wait forever."""
    writer = bench.writer
    for inherits in (False, True):
        writer._lead_lock.acquire()
        job: Job[Any] = Job(lambda: bench.add(-1), "leaves")
        job.gate = threading.Lock()
        job.gate.acquire()
        writer._queue.append(job)
        if inherits:
            writer._hand_over()
            assert job.leads
        writer._leave_line(job)
        if not inherits:
            writer._hand_over()
        assert bench.submit(7).result() == 7
    assert bench.held() == [7, 7]


def test_what_a_work_raises_to_exit_is_its_own_callers(bench: Bench) -> None:
    """A body that calls sys.exit() ends its own caller, not the one that happens to lead."""

    def leave() -> None:
        raise SystemExit(3)

    crowd = Crowd(bench)
    crowd.block()
    jobs = crowd.queue(lambda: bench.add(1), leave, lambda: bench.add(2))
    crowd.release()
    assert [type(job.error) for job in jobs if job.error] == [SystemExit]
    assert bench.held() == [1, 2]


def test_what_lingers_rides_with_the_next(bench: Bench) -> None:
    lingering = bench.submit(1, linger=True)
    assert "commit" not in bench.events
    bench.submit(2)
    assert bench.events == [1, 2, "commit"]
    assert lingering.result() == 1


def test_what_lingers_alone_is_committed_soon(bench: Bench) -> None:
    done = threading.Event()
    bench.writer._on_commit = done.set
    bench.submit(1, linger=True)
    assert done.wait(PATIENCE)
    assert bench.held() == [1]


def test_what_lingers_is_lost_with_the_group_it_rides_with(bench: Bench) -> None:
    """The end of a workflow must not be written when its last step was lost: the job knows."""

    def losing() -> None:
        bench.database.execute("rollback")
        raise apsw.FullError("disk full")

    lingering = bench.submit(1, linger=True)
    assert isinstance(bench.writer.submit(losing, "losing").error, CommitFailed)
    assert isinstance(lingering.error, CommitFailed)
    assert bench.held() == []


def test_settling_waits_for_a_group_that_somebody_else_commits(bench: Bench) -> None:
    """What lingered may be in the hands of another leader: neither open nor queued, and not durable yet."""
    bench.submit(1, linger=True)
    crowd = Crowd(bench)
    crowd.block()
    assert bench.held() == []
    settled = threading.Event()
    held: list[list[int]] = []

    def settle() -> None:
        bench.writer.settle()
        held.append(bench.held())
        settled.set()

    crowd.call(settle)
    assert not settled.wait(0.05)
    crowd.release()
    assert held == [[1]]


def test_settling_does_not_wait_for_those_who_come_later(bench: Bench) -> None:
    """Under load the line is never empty; settling is over when what was there before is durable."""
    stop = threading.Event()
    crowd = Crowd(bench)

    def busy() -> None:
        while not stop.is_set():
            bench.submit(0)

    for _ in range(6):
        crowd.call(busy)
    for _ in range(50):
        job = bench.submit(1, linger=True)
        bench.writer.settle()
        assert job.error is None
    stop.set()
    crowd.release()


def test_what_is_posted_is_done_without_anybody_waiting(bench: Bench) -> None:
    done = threading.Event()
    bench.writer.post(done.set, "posted")
    assert done.wait(PATIENCE)
    bench.writer.post(lambda: bench.add(1), "posted")
    bench.writer.settle()
    assert bench.held() == [1]


def test_those_who_post_do_not_crowd_out_those_who_wait(bench: Bench) -> None:
    """Readers post their records and go on at once; three of them are faster than the writer. Then they wait for it."""
    stop = threading.Event()
    crowd = Crowd(bench)
    longest = 0

    def post() -> None:
        while not stop.is_set():
            bench.writer.post(lambda: bench.add(0), "posted")

    for _ in range(4):
        crowd.call(post)
    for n in range(20):
        bench.submit(n)
        longest = max(longest, len(bench.writer._queue))
    stop.set()
    crowd.release()
    assert longest <= module.GROUP_JOBS + 5


def test_closing_settles_and_takes_no_more(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "closing.db")
    bench.submit(1, linger=True)
    bench.writer.post(lambda: bench.add(2), "posted")
    bench.writer.close()
    assert bench.held() == [1, 2]
    for late in (lambda: bench.submit(3), lambda: bench.writer.post(lambda: None, "late")):
        with pytest.raises(Closed):
            late()
    bench.database.close()


def test_another_program_that_writes_is_waited_for_and_then_reported(bench: Bench) -> None:
    """Somebody holds the file with another tool: every job of the group fails, and works again afterwards."""
    other = apsw.Connection(str(bench.path))
    other.execute("begin immediate")
    assert isinstance(bench.submit(1).error, CommitFailed)
    other.execute("rollback")
    other.close()
    assert bench.submit(2).result() == 2
    assert bench.held() == [2]


def test_a_loss_that_cannot_be_cleaned_up_at_once_is_cleaned_up_before_the_next_job(bench: Bench) -> None:
    """Reading back what the file says fails as well (the disk is gone for a moment): no job runs on guesses."""
    fails = [True, True]

    def on_loss() -> None:
        if fails:
            fails.pop()
            raise apsw.IOError("gone")
        bench.events.append("loss")

    def losing() -> None:
        bench.database.execute("rollback")
        raise apsw.FullError("disk full")

    bench.writer._on_loss = on_loss
    assert isinstance(bench.writer.submit(losing, "losing").error, CommitFailed)
    assert isinstance(bench.submit(1).error, CommitFailed)
    assert bench.submit(2).result() == 2
    assert bench.held() == [2]
    assert bench.events == ["loss", 2, "commit"]


def test_maintenance_that_fails_does_not_keep_the_lead(bench: Bench) -> None:
    def broken() -> None:
        raise AssertionError("a bug of the page log")

    bench.writer._maintain = broken
    assert isinstance(bench.submit(1).error, CommitFailed)
    bench.writer._maintain = lambda: None
    assert bench.submit(2).result() == 2
    assert bench.held() == [2]


def stress(path: Path, seed: int, threads: int, jobs: int) -> None:
    """Callers with all sorts of jobs; every one is answered, and what the file holds is what was acknowledged."""
    bench = Bench(path)
    answered: list[int] = []
    posted: list[int] = []

    def caller(number: int) -> None:
        source = random.Random(f"{seed}/{number}")
        for i in range(jobs):
            n = number * jobs + i
            match source.randrange(12):
                case 0 | 1:
                    job = bench.submit(n, linger=True)
                    bench.writer.settle()
                    answered.append(job.result())
                case 2:
                    lingering = bench.submit(n, linger=True)
                    bench.writer.submit(lambda: None, "end").result()
                    answered.append(lingering.result())
                case 3:
                    bench.writer.post(lambda n=n: bench.add(n), "posted")
                    posted.append(n)
                case 4:
                    with contextlib.suppress(LookupError):
                        bench.writer.submit(refuse, "refuse").result()
                case 5:
                    bench.writer.submit(bench.writer.cut, "cut")
                    answered.append(bench.submit(n).result())
                case _:
                    answered.append(bench.submit(n).result())

    crowd = Crowd(bench)
    for number in range(threads):
        crowd.call(lambda number=number: caller(number))
    crowd.release()
    bench.writer.close()
    assert sorted(bench.held()) == sorted([*answered, *posted])
    bench.database.close()


@pytest.mark.parametrize("seed", range(3))
def test_no_wake_up_is_lost(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of at most three, so that the lead is handed on all the time."""
    monkeypatch.setattr(module, "GROUP_JOBS", 3)
    stress(tmp_path / "stress.db", seed, threads=64, jobs=100)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_no_wake_up_is_lost_in_the_long_run(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if seed % 2:
        monkeypatch.setattr(module, "GROUP_JOBS", 3)
    stress(tmp_path / "stress.db", seed, threads=64, jobs=200)
