"""The benchmarks start and print what they promise; their figures are not looked at here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.postgres import Databases

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


def test_what_cannot_be_measured_on_an_engine_is_refused_with_exit_code_2() -> None:
    done = bench("replay", "--engine", "postgres", "--json")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "replay cannot be measured on Postgres yet" in done.stderr


def test_a_workflow_of_three_transactions_is_three_commits_on_postgres(databases: Databases) -> None:
    done = bench("w2", "--engine", "postgres", "--callers", "1", "--rounds", "1", "--seconds", "0.3", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = map(json.loads, done.stdout.splitlines())
    assert (found["engine"], found["consistent"]) == ("postgres", True)
    assert 3 <= found["commits_per_call"] < 3.2
