"""`retroact init`: a project to start from.

This module must not know what the commands that it prints do.
"""

from __future__ import annotations

import argparse
import importlib.resources
from pathlib import Path

from retroact.cli.failure import BadRequest
from retroact.cli.output import out, paint, print_json

#: What is written, and the template that it is written from.
_FILES = {"retroact.toml": "retroact.toml.template", "shop.py": "shop.py.template"}
_NEXT = ("retroact run setup", """retroact run checkout '{"item": "apple", "quantity": 2}'""", "retroact replay --all")


def options(parser: argparse.ArgumentParser) -> None:
    """The options of `init`."""
    parser.add_argument(
        "folder", metavar="FOLDER", nargs="?", type=Path, default=Path(), help="where (default: here); it is made when it is missing"
    )


def call(args: argparse.Namespace) -> int:
    """Write the project. Nothing that is there is overwritten."""
    folder: Path = args.folder
    if folder.exists() and not folder.is_dir():
        raise BadRequest(problem=f"{folder} is a file", remedy="Give a folder")
    present = [name for name in _FILES if (folder / name).exists()]
    if present:
        raise BadRequest(
            problem=f"{' and '.join(str(folder / name) for name in present)} is there already",
            remedy="Nothing was written. Give another folder",
        )
    folder.mkdir(parents=True, exist_ok=True)
    starter = importlib.resources.files("retroact.cli") / "starter"
    for name, template in _FILES.items():
        (folder / name).write_text((starter / template).read_text(encoding="utf-8"), encoding="utf-8")
    if args.json:
        print_json({"folder": str(folder), "files": list(_FILES), "next": list(_NEXT)})
        return 0
    out(f"Wrote {' and '.join(str(folder / name) for name in _FILES)}.\n\nTry next:")
    if folder.resolve() != Path.cwd():
        out(f"  cd {folder}")
    for command in _NEXT:
        out(f"  {paint(command, 'bold')}")
    return 0
