"""Connections that are kept, at most so many; who finds none free waits for one that is given back.

The last that was given back is taken first, so a lone caller stays on one connection, whose statements are prepared.

This module must not know what connections are used for.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator

import psycopg

from retroact.engine.postgres import address
from retroact.engine.postgres.session import Session
from retroact.errors import Closed, Unreachable

#: Connections of one App. Postgres' own default allows 100 for everybody.
MOST = 32


class Pool:
    """The connections of one App to one database."""

    def __init__(self, url: str, *, most: int = MOST, prepare: Callable[[Session], None] = Session.prepare_own) -> None:
        self.url = url
        self.most = most
        self._prepare = prepare
        self._free: list[Session] = []
        self._taken = 0
        self._changed = threading.Condition()
        self._closed = False
        #: Called when connections were found to be lost, and when one was made: the server may be another than before.
        self.on_change: Callable[[], None] = _nothing

    def take(self) -> Session:
        """A connection without an open transaction; give it back. Raises Unreachable, Closed."""
        with self._changed:
            while True:
                if self._closed:
                    raise Closed(path=address.shown(self.url))
                if self._free:
                    self._taken += 1
                    return self._free.pop()
                if self._taken < self.most:
                    self._taken += 1
                    break
                self._changed.wait()
        try:
            return self._open()
        except BaseException:
            self._let_go(None)
            raise

    def _open(self) -> Session:
        session = address.connect(self.url)
        try:
            self._prepare(session)
        except psycopg.Error as error:
            session.close()
            raise Unreachable(database=address.shown(self.url), problem=" ".join(str(error).split())) from None
        self.on_change()
        return session

    def give_back(self, session: Session) -> None:
        """Let others use it. What it has left open is rolled back; what is broken is thrown away."""
        if not session.broken and not session.idle:
            session.rollback()
        if session.broken:
            session.close()
            self._let_go(None)
        else:
            self._let_go(session)

    def _let_go(self, session: Session | None) -> None:
        with self._changed:
            self._taken -= 1
            if session is not None and self._closed:
                session.close()
            elif session is not None:
                self._free.append(session)
            self._changed.notify()

    def drop_free(self) -> None:
        """The server has gone away: connections that are not used now are not worth keeping."""
        with self._changed:
            free, self._free = self._free, []
        for session in free:
            session.close()
        self.on_change()

    @contextlib.contextmanager
    def session(self) -> Generator[Session]:
        """A connection for a while."""
        session = self.take()
        try:
            yield session
        finally:
            self.give_back(session)

    def close(self) -> None:
        """Let all connections go that nobody uses; those in use go when they are given back."""
        with self._changed:
            self._closed = True
            free, self._free = self._free, []
            self._changed.notify_all()
        for session in free:
            session.close()


def _nothing() -> None:
    """Nobody wants to know."""
