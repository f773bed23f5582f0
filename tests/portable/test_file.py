"""A file is whole or it is refused; a name has the whole file or none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retroact import App, transaction
from retroact.engine.sqlite.portable import file
from retroact.errors import AlreadyThere, DamagedFile, NewerDatabase
from retroact.portable import open_portable

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = {"states": b"[1, 2]", "trace": bytes(range(256)) * 20, "images": b"page" * 5000}
HERE = Path("bug.retro")

sections = st.dictionaries(st.text("abcxyz", min_size=1), st.binary(max_size=200), max_size=5)


@transaction
def create(conn) -> None:
    conn.execute("create table t (a, b)")
    conn.execute("insert into t values (1, 2)")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("small")
    with App(folder / "t.db", [create]) as app:
        app.run(create, run="one")
        app.export(["one"], folder / "t.retro")
    return (folder / "t.retro").read_bytes()


@given(sections)
@settings(deadline=None)
def test_sections_come_back(given_sections: dict[str, bytes]) -> None:
    assert file.unpack(HERE, file.pack(given_sections)) == given_sections


def test_the_same_sections_are_the_same_bytes() -> None:
    assert file.pack(SECTIONS) == file.pack(dict(SECTIONS))


def test_any_byte_that_is_changed_is_found(small: bytes) -> None:
    """Every byte of the file, each with one bit flipped and with another value: none goes unnoticed."""
    for place in range(len(small)):
        for mask in (1, 0x80, 0xFF):
            damaged = bytearray(small)
            damaged[place] ^= mask
            with pytest.raises(DamagedFile):
                file.unpack(HERE, bytes(damaged))


def test_a_file_that_was_cut_off_or_went_on_is_refused(small: bytes) -> None:
    for length in range(len(small)):
        with pytest.raises(DamagedFile):
            file.unpack(HERE, small[:length])
    for more in (b"\0", b"\n", small):
        with pytest.raises(DamagedFile):
            file.unpack(HERE, small + more)


@given(st.binary(max_size=100))
@settings(deadline=None)
def test_anything_else_is_refused(content: bytes) -> None:
    for start in (b"", file.MAGIC):
        with pytest.raises(DamagedFile):
            file.unpack(HERE, start + content)


def test_a_damaged_file_is_refused_by_every_door(small: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from retroact.cli import main

    path = tmp_path / "bug.retro"
    path.write_bytes(small[:-40] + b"?" + small[-39:])
    with pytest.raises(DamagedFile):
        open_portable(path)
    for words in (["runs"], ["trace", "one"], ["replay", "--all"], ["asof", "1", "select 1"], ["retro", "--all", "--with", __file__]):
        assert main([words[0], str(path), *words[1:]]) == 4
        told = capfd.readouterr().err
        assert "is not a whole portable trace: its digest does not fit" in told
        assert "Get the file again, or export it again." in told


def test_a_newer_file_says_so_and_a_damaged_number_does_not(small: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "FORMAT", 9)
    newer = file.pack(SECTIONS)
    monkeypatch.undo()
    with pytest.raises(NewerDatabase, match="Upgrade retroact"):
        file.unpack(HERE, newer)
    damaged = bytearray(small)
    damaged[len(file.MAGIC) + 1] = 9
    with pytest.raises(DamagedFile):
        file.unpack(HERE, bytes(damaged))


def test_writing_takes_no_name_that_is_taken_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "bug.retro"
    file.must_be_free(path, overwrite=False)
    path.write_text("somebody else's")
    with pytest.raises(AlreadyThere):
        file.write(path, b"ours", overwrite=False)
    assert path.read_text() == "somebody else's"
    file.write(path, b"ours", overwrite=True)
    assert path.read_bytes() == b"ours"
    assert list(tmp_path.iterdir()) == [path]


WRITER = """
import sys
from pathlib import Path
from retroact.engine.sqlite.portable import file
content = Path(sys.argv[2]).read_bytes()
print("ready", flush=True)
number = 0
while True:
    number += 1
    path = Path(sys.argv[1]) / f"{number}.retro"
    file.write(path, content, overwrite=number % 2 == 0)
    print(path.name, flush=True)
"""


def test_killed_at_any_moment_it_leaves_no_half_file(small: bytes, tmp_path: Path) -> None:
    """A process that does nothing but write files is killed while it does. Every file that has its name is whole."""
    given_content = tmp_path / "content"
    given_content.write_bytes(small * 50)
    for after in (1, 2, 5, 9, 14):
        folder = tmp_path / str(after)
        folder.mkdir()
        line = [sys.executable, "-c", WRITER, str(folder), str(given_content)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            for _ in range(after):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            said = process.stdout.read().split()
        files = list(folder.glob("*.retro"))
        assert len(files) >= after - 1
        assert {name for name in said if name != "ready"} <= {path.name for path in files}
        for path in files:
            assert path.read_bytes() == small * 50
