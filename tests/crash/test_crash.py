"""Kill it whenever you like: nothing that was acknowledged is lost, nothing happens twice, and the past stays whole.

Real processes and SIGKILL at random instants. Each generation goes on with what the last one left, and is killed in turn, often
enough while it is still recovering. A failing seed prints the command that repeats it (the instants repeat, the scheduling does not).
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from tests.crash.victim import check_orders, check_pairs, check_past, victim

SEED = int(os.environ.get("RETROACT_CRASH_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
KILLS = int(os.environ.get("RETROACT_CRASH_KILLS", "200"))


def announce(test: str, kills: int, seed: int) -> None:
    print(f"RETROACT_CRASH_SEED={seed} RETROACT_CRASH_KILLS={kills} python -m pytest tests/crash -m 'long or not long' -k {test}")


def orders_survive(folder: Path, kills: int, seed: int) -> None:
    with victim(folder, seed) as shop:
        killed = 0
        while killed < kills:
            killed += not shop.live("orders", threads=4, count=25, kill_after=shop.moment())
        assert shop.live("orders", threads=2, count=1, kill_after=None), "the last generation did not come to its end"
        check_orders(shop)
        check_past(shop, versions=8, workflows=20)
        print(f"{killed} kills in {shop.generations} generations, {len(shop.acknowledged)} orders acknowledged")


def pairs_survive(folder: Path, kills: int, seed: int) -> None:
    with victim(folder, seed) as shop:
        for _ in range(kills):
            shop.live("pairs", threads=16, count=100, kill_after=shop.moment())
            if shop.database.exists() and shop.acknowledged:
                check_pairs(shop)
        assert shop.live("pairs", threads=2, count=1, kill_after=None)
        check_pairs(shop)
        check_past(shop, versions=4)
        print(f"{kills} kills, {len(shop.acknowledged)} pairs acknowledged")


def test_every_order_is_carried_out_exactly_once(tmp_path: Path) -> None:
    """An order reserves, charges a card outside of the database, and may fail after that: then both are undone.

    Killed anywhere, also in the middle of undoing, each effect is there once in the end.
    """
    announce("exactly_once", 6, SEED)
    orders_survive(tmp_path, 6, SEED)


def test_a_group_is_lost_whole_or_not_at_all(tmp_path: Path) -> None:
    """Sixteen callers share their commits. Killed between two functions of one group, none that was acknowledged is lost, and
    none is there by half."""
    announce("whole_or_not", 4, SEED)
    pairs_survive(tmp_path, 4, SEED)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_orders_survive_hundreds_of_kills(tmp_path: Path) -> None:
    announce("orders_survive_hundreds", KILLS, SEED)
    orders_survive(tmp_path, KILLS, SEED)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_groups_survive_hundreds_of_kills(tmp_path: Path) -> None:
    announce("groups_survive_hundreds", KILLS, SEED)
    pairs_survive(tmp_path, KILLS, SEED)
