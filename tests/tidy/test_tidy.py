"""Properties of the code itself. Each is an ordinary test, and its message names the remedy."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import io
import os
import re
import string
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from retroact import errors

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src" / "retroact"

# "never say" -> what to say instead: those words of GLOSSARY.md's last column that can mean nothing else in this code.
NEVER_SAY = {
    "txn": "transaction",
    "unit of work": "transaction",
    "udf": "function",
    "procedure": "function",
    "saga": "workflow",
    "activity": "step",
    "call record": "invocation",
    "execution id": "run id",
    "backend": "engine",
    "backtest": "retroaction",
    "lineage": "provenance",
    "audit log": "trace",
    "event log": "trace",
    "lsn": "commit version",
    "txid": "commit version",
    "chaos": "fault",
    "nemesis": "fault",
}
# Files that may name an absolute path, each with its reason.
MAY_NAME_A_PATH: dict[str, str] = {}
# Where waiting for real time is the point.
MAY_SLEEP = ("src/retroact/engine/clock.py", "tests/crash/")
TEXT = {".py", ".md", ".sql", ".toml", ".template", ".txt", ".cfg", ".ini", ".yml", ".yaml", ".json", ".sh", ""}
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(text_of(path), str(path))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def project_files() -> tuple[Path, ...]:
    """Every text file that belongs to the project, without what was built or downloaded."""
    found: list[Path] = []
    for folder, folders, files in os.walk(ROOT):
        at_root = Path(folder) == ROOT
        folders[:] = [name for name in folders if name == ".ci" or not name.startswith(".")]
        folders[:] = [name for name in folders if not name.endswith(".egg-info") and name != "__pycache__"]
        if at_root:
            folders[:] = [name for name in folders if name not in {"build", "dist", "demo"}]
        found += [Path(folder, name) for name in files if Path(name).suffix in TEXT and not (at_root and name == ".git")]
    return tuple(sorted(found))


def python_files(*folders: str) -> list[Path]:
    return [path for path in project_files() if path.suffix == ".py" and name_of(path).startswith(folders)]


def sources() -> list[Path]:
    return python_files("src/")


def nodes(path: Path, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
    return (node for node in ast.walk(tree_of(path)) if isinstance(node, kinds))


def must_be_empty(complaints: Iterator[str] | list[str], remedy: str) -> None:
    found = list(complaints)
    assert not found, f"{remedy}\n  " + "\n  ".join(found)


def lines_without_docstring(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    length = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function, clean=False) is None:
        return length
    docstring = function.body[0]
    return length - ((docstring.end_lineno or docstring.lineno) - docstring.lineno + 1)


def test_functions_are_short() -> None:
    long = (
        f"{name_of(path)}:{node.lineno}: {node.name} has {lines_without_docstring(node)} lines"
        for path in sources()
        for node in nodes(path, *FUNCTION)
        if isinstance(node, FUNCTION) and lines_without_docstring(node) > 70
    )
    must_be_empty(long, "A function has at most 70 lines without its docstring. Move its leaves into functions with a name:")


def test_modules_are_not_too_long() -> None:
    long = (f"{name_of(path)}: {n} lines" for path in sources() if (n := len(text_of(path).splitlines())) > 600)
    must_be_empty(long, "A module has at most 600 lines. Divide it by what its parts need not know of one another:")


def test_modules_say_what_they_are_and_must_not_know() -> None:
    def complaints() -> Iterator[str]:
        for path in sources():
            docstring = " ".join((ast.get_docstring(tree_of(path)) or "").split())
            if not docstring and text_of(path).strip():
                yield f"{name_of(path)}: no docstring"
            elif path.name != "__init__.py" and "must not know" not in docstring:
                yield f'{name_of(path)}: no sentence with "must not know"'

    must_be_empty(complaints(), "A module opens with one paragraph that says what it is, and what it must not know:")


def words(path: Path) -> Iterator[tuple[int, str]]:
    """Identifiers, taken apart into lower-case words, and comments; each with its line."""
    for token in tokenize.generate_tokens(io.StringIO(text_of(path)).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_+", " ", token.string).lower()
        elif token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lower()


def test_the_words_are_those_of_the_glossary() -> None:
    banned = re.compile(rf"\b({'|'.join(NEVER_SAY)})s?\b")
    found = (
        f"{name_of(path)}:{line}: {match[0]!r}: say {NEVER_SAY[match[1]]!r}"
        for path in sources()
        for line, text in words(path)
        if (match := banned.search(text))
    )
    must_be_empty(found, "Use the words of GLOSSARY.md:")


def test_the_banned_words_are_in_the_glossary() -> None:
    rows = [line.strip("| ").split("|") for line in text_of(ROOT / "GLOSSARY.md").splitlines() if line.startswith("| **")]
    never = {word.strip().lower() for row in rows for word in row[-1].split(",")}
    must_be_empty(sorted(NEVER_SAY.keys() - never), 'Banned here, yet missing from the "never say" column of GLOSSARY.md:')


def test_nothing_is_global() -> None:
    found = (f"{name_of(path)}:{node.lineno}" for path in sources() for node in nodes(path, ast.Global))
    must_be_empty(found, "No `global`: two versions of the code run side by side. Make it a value that somebody owns:")


def test_nobody_sleeps() -> None:
    def complaints() -> Iterator[str]:
        for path in python_files("src/", "tests/"):
            if name_of(path).startswith(MAY_SLEEP):
                continue
            for node in ast.walk(tree_of(path)):
                called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
                taken = isinstance(node, ast.ImportFrom) and node.module in {"time", "asyncio"}
                if called in {"time.sleep", "asyncio.sleep"} or (taken and any(a.name == "sleep" for a in node.names)):
                    yield f"{name_of(path)}:{node.lineno}"

    must_be_empty(complaints(), "Do not sleep. In src wait on a Clock (retroact.engine.clock), in tests wait for an event:")


def test_no_pickles() -> None:
    found = (
        f"{name_of(path)}:{node.lineno}"
        for path in python_files("")
        for node in nodes(path, ast.Import, ast.ImportFrom)
        if isinstance(node, ast.Import | ast.ImportFrom) and re.search(r"\b(pickle|cloudpickle|dill|shelve|marshal)\b", ast.unparse(node))
    )
    must_be_empty(found, "Pickles run code when they are read. Encode with msgspec from declared types:")


# --- errors ---------------------------------------------------------------------------------------------------------------

ERRORS = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, errors.RetroactError) and kind.__module__ == errors.__name__
}


def fields_of(kind: type) -> set[str]:
    parsed = string.Formatter().parse(kind.__doc__ or "")
    return {re.split(r"[.\[]", field)[0] for _, field, _, _ in parsed if field is not None}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_has_a_message_that_can_be_filled(name: str) -> None:
    docstring = vars(ERRORS[name]).get("__doc__")
    assert docstring, f"{name} has no docstring. It is its message: say what happened and what to do about it."
    try:
        fields = fields_of(ERRORS[name])
    except ValueError as error:
        pytest.fail(f"{name}: {error}. Write {{{{ and }}}} for braces that are meant as such.")
    bad = sorted(field for field in fields if not field.isidentifier())
    assert not bad, f"{name}: {bad} cannot be keyword arguments. Name the fields in the docstring's braces."


def raised() -> Iterator[tuple[str, ast.Call, str]]:
    for path in sources():
        for node in nodes(path, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[-1] if isinstance(node, ast.Call) else ""
            if isinstance(node, ast.Call) and called in ERRORS:
                yield called, node, f"{name_of(path)}:{node.lineno}"


def test_errors_are_raised_with_the_fields_of_their_message() -> None:
    def complaints() -> Iterator[str]:
        for name, call, where in raised():
            given = {keyword.arg for keyword in call.keywords}
            if None not in given and (missing := sorted(fields_of(ERRORS[name]) - given)):
                yield f"{where}: {name} without {', '.join(missing)}"

    must_be_empty(complaints(), "Pass every field that the error's docstring has in braces:")


def test_every_error_is_raised_somewhere() -> None:
    leaves = {name for name, kind in ERRORS.items() if not kind.__subclasses__()}
    dead = sorted(leaves - {name for name, _, _ in raised()})
    must_be_empty(dead, "Nothing in src raises these. Raise them where they are due, or remove them from errors.py:")


# --- files that are not Python ----------------------------------------------------------------------------------------------


def test_sql_files_say_what_they_are() -> None:
    bare = (name_of(path) for path in project_files() if path.suffix == ".sql" and not text_of(path).startswith("--"))
    must_be_empty(bare, "Open an .sql file with a comment: what it is for, and what holds in it:")


def test_nothing_depends_on_one_machine() -> None:
    folders = "|".join(("work", "tmp", "root", r"home/\w+"))
    hosts = "|".join((r"pypi\.org", r"pythonhosted\.org", r"npmjs\.(?:org|com)"))
    machine = re.compile(rf"(?<![\w.~}}])/(?:{folders})/|{hosts}")
    found = (
        f"{name_of(path)}:{number}: {match[0]}"
        for path in project_files()
        if name_of(path) not in MAY_NAME_A_PATH
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if (match := machine.search(line))
    )
    must_be_empty(found, "Name no folder of one machine and no registry's host. Use tempfile, tmp_path or a relative path:")


def test_the_architecture_fits_on_a_page() -> None:
    path = ROOT / "ARCHITECTURE.md"
    assert path.exists(), "ARCHITECTURE.md is missing: a bird's-eye view, a map of the folders, and what always holds."
    assert len(text_of(path).splitlines()) < 200, "ARCHITECTURE.md has 200 lines or more. Move reasons to docs/decisions/."


def verbs() -> set[str]:
    """The verbs of the command line, as its own help lists them."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        importlib.import_module("retroact.cli").main(["--help"])
    return set(re.findall(r"^ {2,6}([a-z][a-z-]+)(?: {2,}|$)", shown.getvalue(), re.MULTILINE))


def test_the_readme_shows_every_verb() -> None:
    known = verbs()
    assert known >= {"run", "demo", "replay", "retro"}, f"`retroact --help` lists its verbs one a line, indented; found {known}."
    readme = text_of(ROOT / "README.md")
    missing = sorted(verb for verb in known if f"retroact {verb}" not in readme)
    must_be_empty(missing, "README.md does not show `retroact VERB` for:")


def test_the_reference_documents_every_public_name() -> None:
    pages = [text_of(path) for path in project_files() if name_of(path).startswith("docs/reference/")]
    public = getattr(importlib.import_module("retroact"), "__all__", None)
    assert public, "src/retroact/__init__.py has no __all__. It is the public API, and nothing else."
    if pages:
        missing = sorted(name for name in public if not any(re.search(rf"\b{name}\b", page) for page in pages))
        must_be_empty(missing, "Public, and on no page of docs/reference/:")
