"""Group commit: many jobs, one database transaction, one fsync, and each job acknowledged only after it.

Invariants:
  * A job is acknowledged (its `submit` returns) only after a COMMIT that holds it has returned, with the one exception below.
  * The jobs of a group are executed one after the other, in the order of the queue; that order is the serial order.
  * When a COMMIT fails, every job of its group fails with CommitFailed: none of them happened.

There is no writer thread. The first caller that finds the writer free leads: it executes its own job and all that wait, commits, wakes
the others and hands the lead to the next in line. A lone caller therefore pays for no thread switch at all.

Those who waited wake one another, each the next as the first thing it does, and the new leader is the last of that chain: were all
woken at once they would only queue for Python's lock, and keep the new leader from it.

The exception: a job may *linger*. When its caller expects to bring another one at once (the end of a workflow after its last
transaction), the group is left open so that both ride in one commit. Nothing leaves the platform in between; whoever comes next, or
the tender after a few milliseconds, commits.

This module must not know what a job does, nor what a record is.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import apsw

from retroact.engine.clock import monotonic
from retroact.errors import Closed, CommitFailed

T = TypeVar("T")

#: A group ends when it holds so many jobs, or has been executing for so long (seconds).
GROUP_JOBS = 256
GROUP_SECONDS = 0.01
#: How long a lingering or a posted job waits at most for company (seconds).
TEND_SECONDS = 0.005
#: Ticks without work after which the tender goes to sleep.
_IDLE_TICKS = 20


def _nothing() -> None:
    """The work of who only wants to know that everything before is durable."""


class Job(Generic[T]):
    """Something to do inside the writer's transaction, and what came of it."""

    __slots__ = ("error", "gate", "leads", "name", "next", "value", "work")

    def __init__(self, work: Callable[[], T], name: str) -> None:
        self.work = work
        self.name = name
        self.gate: threading.Lock | None = None
        self.leads = False
        #: The gate of who is to be woken next.
        self.next: threading.Lock | None = None
        self.value: T | None = None
        self.error: BaseException | None = None

    def result(self) -> T:
        """What the work returned; raises what it raised."""
        if self.error is not None:
            raise self.error
        return cast("T", self.value)


class Writer:
    """The only connection that writes. `on_commit` is called after each commit, `on_loss` after a group was rolled back, `maintain`
    before a group is begun; none of them should raise."""

    def __init__(
        self,
        database: apsw.Connection,
        *,
        path: str,
        on_commit: Callable[[], None],
        on_loss: Callable[[], None],
        maintain: Callable[[], None],
    ) -> None:
        self.database = database
        self.path = path
        self.commits = 0
        self._on_commit = on_commit
        self._on_loss = on_loss
        self._maintain = maintain
        self._lead_lock = threading.Lock()
        #: Held while an heir is chosen, and by a caller that leaves the line: an heir that has left would never lead.
        self._line = threading.Lock()
        #: A group was lost, and going back to what the file says has not succeeded yet.
        self._unsure = False
        self._queue: collections.deque[Job[Any]] = collections.deque()
        self._open: list[Job[Any]] = []
        #: Jobs that are done, whose callers are to be woken when the lead is handed over.
        self._done: list[Job[Any]] = []
        self._cut = False
        self._closed = False
        self._stop = threading.Event()
        self._call_tender = threading.Event()
        self._tender = threading.Thread(target=self._tend, name="retroact-tender", daemon=True)
        self._tender.start()

    def submit(self, work: Callable[[], T], name: str, *, linger: bool = False) -> Job[T]:
        """Execute `work` in the writer's transaction and return when it is durable (or may linger).

        The work undoes its own effects before it raises. Raises nothing itself but Closed: the job knows what came of it.
        """
        if self._closed:
            raise Closed(path=self.path)
        job = Job(work, name)
        self._enter(job, linger=linger)
        return job

    def post(self, work: Callable[[], Any], name: str) -> None:
        """Execute `work` with the next group, or within a few milliseconds. Nobody waits for it, unless so much is posted already
        that it would keep those waiting who submit: then whoever posts waits like them."""
        if self._closed:
            raise Closed(path=self.path)
        if len(self._queue) < GROUP_JOBS:
            self._queue.append(Job(work, name))
            self._call_tender.set()
        else:
            self._enter(Job(work, name))

    def cut(self) -> None:
        """Called by a job: commit right after it, so that the state it leaves is one that a commit left."""
        self._cut = True

    def settle(self) -> None:
        """Return when everything that was submitted or posted before is durable, or lost."""
        # In this order: what is no longer open nor in the queue is in the hands of a leader until it is committed.
        if self._open or self._queue or self._lead_lock.locked():
            self._enter(Job(_nothing, "settle"))

    def close(self) -> None:
        """Settle, and take no more jobs."""
        self._closed = True
        while self._open or self._queue or self._lead_lock.locked():
            self.settle()
        self._stop.set()
        self._call_tender.set()
        if threading.current_thread() is not self._tender:
            self._tender.join()

    def _enter(self, job: Job[Any], *, linger: bool = False) -> None:
        """Do a job with the next group: as its leader if nobody leads, else when its turn comes."""
        if self._lead_lock.acquire(blocking=False) or self._wait_in_line(job):
            self._lead(job, linger=linger)

    def _wait_in_line(self, job: Job[Any]) -> bool:
        """Queue up behind the leader; True when the lead was handed to us with our job still to do."""
        job.gate = gate = threading.Lock()
        gate.acquire()
        self._queue.append(job)
        # The leader may have left between our look and our entry: then nobody would come for us.
        if self._lead_lock.acquire(blocking=False):
            self._hand_over()
        try:
            gate.acquire()
        except BaseException:
            self._leave_line(job)
            raise
        finally:
            if job.next is not None:
                job.next.release()
        return job.leads

    def _leave_line(self, job: Job[Any]) -> None:
        """The waiting thread was interrupted. Its job is not done if nobody has begun it; the lead, if it has it, goes on."""
        with self._line:
            with contextlib.suppress(ValueError):
                self._queue.remove(job)
            leads = job.leads
        if leads:
            self._hand_over()

    def _first_in_line(self) -> Job[Any] | None:
        """The first caller that waits; what was posted waits for nobody."""
        if not self._queue or self._queue[0].gate is not None:
            return self._queue[0] if self._queue else None
        return next((job for job in tuple(self._queue) if job.gate is not None), None)

    def _hand_over(self) -> None:
        """Give the lead to the first caller in line, or lay it down, and wake those whose jobs are done."""
        while True:
            if self._queue:
                with self._line:
                    heir = self._first_in_line()
                    if heir is not None:
                        heir.leads = True
                        self._wake(heir)
                        return
            if self._done:
                self._wake()
            self._lead_lock.release()
            # A caller may have queued up just before the release; somebody has to take it.
            if not self._queue or self._first_in_line() is None or not self._lead_lock.acquire(blocking=False):
                return

    def _lead(self, own: Job[Any] | None, *, linger: bool = False) -> None:
        """Execute and commit one group. Called with the lead, which is handed on before it returns."""
        group, self._open = self._open, []
        interrupt: BaseException | None = None
        try:
            if own is not None and own.gate is None:
                self._queue.append(own)
            if not group:
                self._maintain()
            interrupt = self._execute_queue(group, own)
            if linger and own is not None and own.error is None and all(job is own or job.gate is None for job in group):
                self._open = group
                self._call_tender.set()
            else:
                self._finish(group)
        except Exception as error:  # noqa: BLE001 - every caller of the group is told, in its own thread
            self._lose(group, own, error)
        except BaseException as error:  # noqa: BLE001 - an interrupt between two jobs: no caller may be left waiting
            interrupt = error
            self._break_off(group, own, error)
        finally:
            self._hand_over()
        if interrupt is not None:
            raise interrupt

    def _execute_queue(self, group: list[Job[Any]], own: Job[Any] | None) -> BaseException | None:
        """Move jobs from the queue to the group, doing each; in order, until the group is full, and never without our own."""
        interrupt: BaseException | None = None
        if self._unsure:
            self._restore()
        deadline = monotonic() + GROUP_SECONDS
        limit = len(group) + GROUP_JOBS
        ours_done = own is None
        while self._queue and not (ours_done and (len(group) >= limit or monotonic() > deadline)):
            job = self._queue.popleft()
            group.append(job)
            ours_done = ours_done or job is own
            interrupt = self._execute(job, own) or interrupt
            if self._cut:
                self._finish(group)
        return interrupt

    def _execute(self, job: Job[Any], own: Job[Any] | None) -> BaseException | None:
        """Do one job. An interrupt of this thread stops nobody else's job but the one it hit, and goes on after the group."""
        try:
            if job.work is not _nothing and self.database.get_autocommit():
                self.database.execute("begin immediate")
            job.value = job.work()
        except Exception as error:
            job.error = error
            if isinstance(error, apsw.Error) and self.database.get_autocommit():
                raise  # SQLite has rolled back everything (disk full, I/O error): the group is lost
        except KeyboardInterrupt as interrupt:
            job.error = interrupt if job is own else CommitFailed(function=job.name, problem="the process was interrupted")
            return None if job is own else interrupt
        except BaseException as error:  # noqa: BLE001 - SystemExit and the like were raised by the work, for who asked for it
            job.error = error
        return None

    def _commit(self) -> None:
        self._cut = False
        if not self.database.get_autocommit():
            self.database.execute("commit")
            self.commits += 1
            self._on_commit()

    def _finish(self, group: list[Job[Any]]) -> None:
        self._commit()
        self._release(group)

    def _release(self, group: list[Job[Any]]) -> None:
        """Those who wait for a job of the group, which is empty afterwards, are to be woken."""
        self._done += [job for job in group if job.gate is not None and not job.leads]
        group.clear()

    def _wake(self, heir: Job[Any] | None = None) -> None:
        """Wake those whose jobs are done, and after them whoever is to lead."""
        waiting = self._done if heir is None else [*self._done, heir]
        for job, following in itertools.pairwise(waiting):
            job.next = following.gate
        first = waiting[0].gate
        assert first is not None, "only who waits is woken"
        self._done = []
        first.release()  # with nothing in between, so that no interrupt comes there: nobody would be woken

    def _break_off(self, group: list[Job[Any]], own: Job[Any] | None, interrupt: BaseException) -> None:
        """This thread was interrupted between two jobs: what is committed is acknowledged, what is not is lost."""
        if self._open is group and group:
            return
        if group and self.database.get_autocommit():
            self._on_commit()
            self._release(group)
        else:
            self._lose(group, own, interrupt)

    def _restore(self) -> None:
        """Agree with the file again after a loss."""
        if not self.database.get_autocommit():
            self.database.execute("rollback")
        self._on_loss()
        self._unsure = False

    def _lose(self, group: list[Job[Any]], own: Job[Any] | None, cause: BaseException) -> None:
        """The group's transaction is lost: roll back what is left of it and tell everybody."""
        self._unsure = True
        self._cut = False
        with contextlib.suppress(Exception):  # then the next leader tries again, before it executes anything
            self._restore()
        if own is not None and own in self._queue:
            self._queue.remove(own)
            group.append(own)
        for job in group:
            if job.error is None or isinstance(job.error, apsw.Error):
                job.error = CommitFailed(function=job.name, problem=str(cause) or "the process was interrupted")
        self._release(group)

    def _tend(self) -> None:
        """Commit what lingers or was posted when nobody else comes by."""
        while not self._stop.is_set():
            self._call_tender.wait()
            idle = 0
            while idle < _IDLE_TICKS and not self._stop.wait(TEND_SECONDS):
                idle = 0 if self._open or self._queue else idle + 1
                if (self._open or self._queue) and self._lead_lock.acquire(blocking=False):
                    self._tend_once()
            self._call_tender.clear()
            if self._open or self._queue:
                self._call_tender.set()

    def _tend_once(self) -> None:
        with contextlib.suppress(Exception):  # the jobs know; nobody waits for the tender
            self._lead(None)
