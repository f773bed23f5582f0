"""How this process hashes text: what decides the order in which a set of strings is gone through.

Python chooses a hash seed for each process unless PYTHONHASHSEED names one. One that Python chose cannot be read, so beside the seed a
probe is told: two processes hash alike exactly when their probes are equal.

This module must not know where it is recorded, nor what is made of it.
"""

from __future__ import annotations

import os
import sys

from retroact.trace.record import Hashing

VARIABLE = "PYTHONHASHSEED"


def present_hashing() -> Hashing:
    """The hashing of this process."""
    named = None if sys.flags.ignore_environment else os.environ.get(VARIABLE)
    chosen = named.isdigit() and (int(named) == 0) == (sys.flags.hash_randomization == 0) if named else False
    return Hashing(seed=named if chosen else None, probe=hash("retroact"))
