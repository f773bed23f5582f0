"""Functions that tests of the engine run. In a file of their own, so that their code is recorded and can be run again."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

from retroact import transaction, workflow

FORBIDDEN = Path("forbidden.txt")


@transaction
def create(conn: Any) -> None:
    conn.execute("create table counter (name text primary key, n integer not null)")
    conn.execute("create table entry (who text, what text)")
    conn.execute("insert into counter values ('a', 0), ('b', 0)")


@transaction
def increment(conn: Any, name: str) -> int:
    n = conn.value("select n from counter where name = :name", name=name)
    conn.execute("update counter set n = :n where name = :name", n=n + 1, name=name)
    return n + 1


@transaction
def take(conn: Any, name: str) -> bool:
    """Take one from `name` as long as both together stay above zero: write skew would let both go."""
    if conn.value("select sum(n) from counter") < 1:
        return False
    conn.execute("update counter set n = n - 1 where name = :name", name=name)
    return True


@transaction
def move(conn: Any, n: int) -> None:
    conn.execute("update counter set n = n - :n where name = 'a'", n=n)
    conn.execute("update counter set n = n + :n where name = 'b'", n=n)


@transaction(read_only=True)
def total(conn: Any) -> list[int]:
    """Two statements of one snapshot, and how many moves it has seen."""
    a = conn.value("select n from counter where name = 'a'")
    return [a, conn.value("select n from counter where name = 'b'"), conn.value("select count(*) from entry")]


@transaction(read_only=True)
def sneak(conn: Any) -> None:
    conn.execute("delete from entry")


@workflow
def sneak_first() -> None:
    sneak()


@transaction
def grow(conn: Any, size: int) -> None:
    conn.execute("insert into entry values ('grow', zeroblob(:size))", size=size)


@transaction
def grow_and_forgive(conn: Any, size: int) -> str:
    try:
        conn.execute("insert into entry values ('grow', zeroblob(:size))", size=size)
    except Exception:  # noqa: BLE001 - a body that goes on whatever happens
        conn.execute("insert into entry values ('forgiven', 'yes')")
    return "went on"


@transaction
def reach_out(conn: Any, how: str) -> None:
    conn.execute("insert into entry values ('reach', :how)", how=how)
    REACHES[how]()


@transaction
def breaks(conn: Any, who: str) -> None:
    conn.execute("insert into entry values (:who, 'before')", who=who)
    conn.execute("insert into counter values ('a', 1)")


@transaction
def orphan(conn: Any) -> None:
    conn.execute("create table if not exists child (name text references counter deferrable initially deferred)")
    conn.execute("insert into child values ('nobody')")


REACHES = {
    "socket": socket.socket,
    "connect": lambda: socket.create_connection(("127.0.0.1", 9)),
    "look up": lambda: socket.getaddrinfo("localhost", 80),
    "read": lambda: Path("/etc/hostname").read_text(),
    "write": lambda: FORBIDDEN.write_text("x"),
    "write source": lambda: Path("forbidden.py").write_text("x"),
    "descriptor": lambda: os.open("forbidden.py", os.O_WRONLY | os.O_CREAT),
    "remove": FORBIDDEN.unlink,
    "rename": lambda: FORBIDDEN.rename("other"),
    "folder": lambda: Path("forbidden").mkdir(),
    "thread": lambda: threading.Thread(target=print).start(),
    "process": lambda: subprocess.run(["true"], check=False),
    "shell": lambda: os.system("true"),
    "fork": os.fork,
    "signal": lambda: os.kill(os.getpid(), 0),
}
