"""Which process a workflow belongs to, and whether it still lives.

Each App has a number and holds the advisory lock of that number on a connection of its own for as long as it is open: when its process
ends in any way, the server lets the lock go. Whoever opens the database takes over the workflows of numbers that nobody holds. A process
that was cut off may go on with a run that another has taken over; then the records' key keeps each effect from happening twice.

This module must not know what a workflow is.
"""

from __future__ import annotations

import threading

import psycopg

from retroact.engine.postgres import address
from retroact.engine.postgres.queries import queries
from retroact.engine.postgres.session import Session
from retroact.errors import Unreachable


class Lease:
    """The number of this App, held."""

    def __init__(self, session: Session, url: str) -> None:
        """Hold a new number on a connection, which is the lease's from now on."""
        self._url = url
        self._session = session
        self._lock = threading.Lock()
        self._closed = False
        self.number = int(session.rows(queries()["new_process"])[0][0])
        self._held = self._hold(session)

    def renew(self) -> None:
        """Connections were lost or made: hold the number again if its connection was lost. What fails is tried again next time."""
        with self._lock:
            if self._closed or (not self._lost() and self._held):
                return
            try:
                session = address.connect(self._url)
            except Unreachable:
                return
            self._session.close()
            self._session = session
            try:
                self._held = self._hold(session)
            except psycopg.Error:
                self._held = False

    def _hold(self, session: Session) -> bool:
        return bool(session.rows(queries()["hold"].format(number=self.number))[0][0])

    def _lost(self) -> bool:
        if not self._session.broken:
            try:
                self._session.flight(b"select 1")
            except psycopg.Error:
                return True
        return self._session.broken

    def close(self) -> None:
        """Let the number go: what is not finished may be taken over."""
        with self._lock:
            self._closed = True
            self._session.close()
