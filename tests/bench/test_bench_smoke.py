"""The benchmarks start and print what they promise; their figures are not looked at here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_the_list_names_every_benchmark_with_a_line() -> None:
    done = bench("--list")
    assert done.returncode == 0, done.stderr
    named = [line.split()[0] for line in done.stdout.splitlines()]
    assert named == ["w1", "w1hot", "recording", "w2", "w3", "w5", "w6", "open", "export", "explore", "replay", "given", "verify", "retro"]


def test_a_benchmark_prints_one_object_a_line() -> None:
    done = bench("w5", "--rounds", "1", "--seconds", "0.1", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = map(json.loads, done.stdout.splitlines())
    assert found["name"] == "w5"
    assert found["engine"] == "sqlite"
    assert found["callers"] == 1
    assert found["ours"] > 0
    assert found["limit"] > 0
    assert found["ratio"] > 0
    assert found["asked"] == "< 1 ms"


def test_an_engine_that_is_not_there_is_refused_with_exit_code_2() -> None:
    done = bench("w1", "--engine", "postgres", "--json")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "postgres cannot be measured yet" in done.stderr
