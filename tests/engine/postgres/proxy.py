"""Stands between a client and the server, and cuts the line when a COMMIT comes by: before it is passed on, or before its answer is."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import Any, Self

from psycopg.conninfo import conninfo_to_dict


class Proxy:
    """A line to the server of an address. `cut` is "", "before" or "after"; it is "" again once the line was cut."""

    def __init__(self, url: str) -> None:
        parts = conninfo_to_dict(url)
        self._target = (str(parts["host"]), int(parts["port"] or 5432))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"postgresql://{parts['user']}@127.0.0.1:{self._listener.getsockname()[1]}/{parts['dbname']}"
        self.cut = ""
        self._closed = False
        self._lines: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for line in self._lines:
            line.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = self._connect()
            self._lines += [client, server]
            threading.Thread(target=self._carry, args=(client, server), daemon=True).start()

    def _connect(self) -> socket.socket:
        host, port = self._target
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), client, server:
            while True:
                ready, _, _ = select.select([client, server], [], [])
                for one in ready:
                    data = one.recv(1 << 16)
                    if not data:
                        return
                    other = server if one is client else client
                    if one is client and self.cut and b"commit" in data.lower():
                        when, self.cut = self.cut, ""
                        if when == "after":
                            server.sendall(data)
                            server.recv(1 << 16)
                        return
                    other.sendall(data)
