"""`retroact demo`: the seed's story on this machine.

This module must not know the story.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

_FOLDER = "retroact-demo"


def options(parser: argparse.ArgumentParser) -> None:
    """The options of `demo`."""
    help_ = f"where the project is left to play with (default: {_FOLDER}, or the first free name after it)"
    parser.add_argument("folder", metavar="FOLDER", nargs="?", type=Path, help=help_)


def call(args: argparse.Namespace) -> int:
    """Show it."""
    from retroact.cli.demo import demo

    return demo(args.folder or _free(), as_json=args.json)


def _free() -> Path:
    names = itertools.chain([_FOLDER], (f"{_FOLDER}-{number}" for number in itertools.count(2)))
    return next(Path(name) for name in names if not Path(name).exists())
