"""Code by content: capturing a project, and loading versions of it beside one another.

Every test writes a small project into a folder of its own and looks at what comes back.
"""

from __future__ import annotations

import inspect
import io
import linecache
import pdb
import subprocess
import sys
import traceback
import typing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from retroact.errors import LoadFailed, SourceMissing
from retroact.function.code import Code, Source, capture, load, load_path, unload
from retroact.function.names import plain_name

PACKAGE = {
    "shop/__init__.py": "from shop.models import Order\nfrom . import prices\nTAG = 'shop'\n",
    "shop/models.py": "import shop.prices as p\nclass Order:\n    def total(self):\n        return p.RATE\n",
    "shop/prices.py": "RATE = 3\ndef tag():\n    from shop import TAG\n    return TAG\n",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


@pytest.fixture(autouse=True)
def process() -> Iterator[None]:
    """Nothing of a test stays in the process."""
    modules, path, meta_path, cache = set(sys.modules), sys.path[:], sys.meta_path[:], set(linecache.cache)
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    sys.path[:], sys.meta_path[:] = path, meta_path
    for name in set(linecache.cache) - cache:
        del linecache.cache[name]


def imported(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(folder)
    return __import__(name, fromlist=["x"])


def code_of(**texts: str) -> Code:
    return Code(next(iter(texts)), tuple(Source(name, f"{name}.py", text) for name, text in sorted(texts.items())))


# --- values ---------------------------------------------------------------------------------------------------------------


def test_a_source_is_known_by_its_text():
    assert Source("a", "a.py", "x").hash == Source("b", "b.py", "x").hash
    assert Source("a", "a.py", "x").hash != Source("a", "a.py", "y").hash
    assert len(Source("a", "a.py", "x").hash) == 32


def test_a_code_is_known_by_its_names_texts_and_main_module():
    code = code_of(a="import b", b="import a")
    assert code.hash == replace(code).hash
    others = {code.hash, replace(code, main="b").hash, code_of(a="import b", b="").hash, code_of(a="import b", c="import a").hash}
    assert len(others) == 4


def test_a_plain_name_has_no_tag():
    assert [plain_name(each) for each in ("shop", "shop@3f", "shop@3f-2.models.a")] == ["shop", "shop", "shop.models.a"]


# --- capture --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("main", "files", "names"),
    [
        ("shop", {"shop.py": "import json, sys, msgspec, retroact.errors\n"}, ["shop"]),
        ("shop", {"shop.py": "import helper\n", "helper.py": "", "other.py": ""}, ["helper", "shop"]),
        (
            "shop",
            {"shop.py": "def f():\n  import helper\n", "helper.py": "from deep import x", "deep.py": "x=1"},
            ["deep", "helper", "shop"],
        ),
        ("shop", {"shop.py": "try:\n  import helper\nexcept ImportError:\n  pass\n"}, ["shop"]),
        ("shop", {"shop.py": "import lib.a.b\n", "lib/a/b.py": ""}, ["lib.a.b", "shop"]),
        (
            "shop",
            {"shop.py": "from lib import *\n", "lib/__init__.py": "__all__ = ['a']", "lib/a.py": "", "lib/b.py": ""},
            ["lib", "lib.a", "shop"],
        ),
        ("shop", {"shop.py": "import helper\n", "helper.py": "import shop"}, ["helper", "shop"]),
        ("shop", PACKAGE, ["shop", "shop.models", "shop.prices"]),
        ("shop.prices", PACKAGE, ["shop", "shop.models", "shop.prices"]),
        (
            "shop.a.b",
            {"shop/__init__.py": "", "shop/a/__init__.py": "", "shop/a/b.py": "from ..c import x", "shop/c.py": "x=1"},
            ["shop", "shop.a", "shop.a.b", "shop.c"],
        ),
        ("shop", {"shop.py": "def f():\n  import broken\n", "broken.py": "def ("}, ["broken", "shop"]),
        ("shop", {"shop.py": "# -*- coding: latin-1 -*-\nx = 1\r\ny = 2\n"}, ["shop"]),
    ],
)
def test_it_captures_what_the_project_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, main: str, files: dict[str, str], names: list[str]
):
    module = imported(write(tmp_path, files), main, monkeypatch)
    code = capture(module)
    assert (code.main, [source.name for source in code.sources]) == (main, names)
    assert all((tmp_path / source.path).read_text() == source.text for source in code.sources)
    assert capture(load(code)) == code


def test_libraries_are_not_of_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    library = write(tmp_path / ".venv/lib/site-packages", {"helper.py": "x = 1"})
    monkeypatch.syspath_prepend(library)
    module = imported(write(tmp_path, {"shop.py": "import helper"}), "shop", monkeypatch)
    assert [source.name for source in capture(module).sources] == ["shop"]


def test_of_an_installed_application_only_its_own_package_is_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write(tmp_path / "site-packages", {**PACKAGE, "helper.py": "", "shop/cli.py": "import helper, shop"})
    module = imported(folder, "shop.cli", monkeypatch)
    assert [source.name for source in capture(module).sources] == ["shop", "shop.cli", "shop.models", "shop.prices"]


def test_a_module_from_another_folder_of_the_project_is_captured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, {"shop.py": "import helper", "parts/helper.py": ""})
    monkeypatch.syspath_prepend(tmp_path / "parts")
    code = capture(imported(tmp_path, "shop", monkeypatch))
    assert [source.path for source in code.sources] == ["parts/helper.py", "shop.py"]


@pytest.mark.parametrize(
    ("command", "main"),
    [(["shop.py"], "shop"), (["-m", "shop"], "shop"), (["-m", "lib.run"], "lib.run"), (["my.shop.py"], "my_shop")],
)
def test_a_script_goes_by_the_name_of_its_file(tmp_path: Path, command: list[str], main: str):
    text = (
        "import sys\nfrom retroact.function.code import capture, load\ncode = capture(sys.modules['__main__'])\n"
        "if __name__ == '__main__':\n    print(code.main, [s.name for s in code.sources], load(code).__name__)\n"
    )
    text = text.replace("code = capture", "if __name__ == '__main__': code = capture")
    write(tmp_path, {"shop.py": text, "lib/__init__.py": "", "lib/run.py": text, "my.shop.py": text})
    source = Path(__file__).parents[2] / "src"
    run = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env={"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert run.stderr == ""
    assert run.stdout.split()[0] == main
    assert main.partition(".")[0] + "@" in run.stdout


@pytest.mark.parametrize("file", [None, "/nowhere/shop.py", sys.executable])
def test_a_module_without_a_source_file_says_so(file: str | None):
    module = ModuleType("shop")
    if file is not None:
        module.__file__ = file
    with pytest.raises(SourceMissing, match="shop"):
        capture(module)
    with pytest.raises(SourceMissing):
        capture(sys)


# --- two versions beside one another --------------------------------------------------------------------------------------


def test_two_versions_live_beside_the_imported_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, {"shop.py": "import helper\ndef price(): return helper.RATE\n", "helper.py": "RATE = 1\n"})
    real = imported(tmp_path, "shop", monkeypatch)
    before = {name: sys.modules[name] for name in ("shop", "helper")}
    first = load_path(tmp_path / "shop.py")
    write(tmp_path, {"helper.py": "RATE = 2\n"})
    second = load_path(tmp_path / "shop.py")
    third = load(capture(first))
    assert [each.price() for each in (real, first, second, third)] == [1, 1, 2, 1]
    first.helper.RATE = 9
    assert [each.price() for each in (real, first, second, third)] == [1, 9, 2, 1]
    assert {name: sys.modules[name] for name in ("shop", "helper")} == before
    names = [each.__name__ for each in (first, second, third)]
    assert len(set(names)) == 3
    assert all(plain_name(name) == "shop" and name in sys.modules for name in names)
    assert third.__name__ == f"{first.__name__}-2"


SCHEMA = """
from __future__ import annotations
import dataclasses, typing, enum, collections, msgspec
class Kind(enum.Enum):
    A = {value!r}
@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    kind: Kind
    count: typing.ClassVar[int] = 0
    left: Line | None = None
class Order(msgspec.Struct):
    lines: list[Line]
    extra: {kind} = {value!r}
class Row(typing.NamedTuple):
    kind: Kind
class Data(typing.TypedDict):
    kind: Kind
def make() -> Order:
    return Order([Line(Kind.A)])
"""


def test_types_of_each_version_are_its_own():
    texts = [SCHEMA.format(kind=kind, value=value) for kind, value in (("int", 1), ("str", "one"))]
    first, second = (load(code_of(shop=text)) for text in texts)
    for each, value in ((first, 1), (second, "one")):
        encoded = msgspec.json.encode(each.make())
        decoded = msgspec.json.decode(encoded, type=each.Order)
        assert decoded == each.make()
        assert (decoded.extra, decoded.lines[0].kind) == (value, each.Kind(value))
        assert typing.get_type_hints(each.Line)["left"] == each.Line | None
        assert typing.get_type_hints(each.Order)["lines"] == list[each.Line]
        assert typing.get_type_hints(each.make)["return"] is each.Order
        assert typing.get_type_hints(each.Row)["kind"] is typing.get_type_hints(each.Data)["kind"] is each.Kind
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(second.make()), type=first.Order)
    assert first.Line is not second.Line


def test_imports_inside_functions_find_their_own_version_later(tmp_path: Path):
    text = (
        "def absolute():\n    import helper\n    return helper.RATE\n"
        "def named():\n    from lib import deep\n    return deep.RATE\n"
        "def dotted():\n    import lib.deep\n    return lib.deep.RATE\n"
        "def renamed():\n    import lib.deep as d\n    return d.RATE\n"
        "def relative():\n    from lib import relative\n    return relative()\n"
        "def twice():\n    def inner():\n        from helper import RATE\n        return RATE\n    return inner()\n"
        "class C:\n    def method(self):\n        from helper import RATE as r\n        return r\n"
    )
    package = "def relative():\n    from .deep import RATE\n    from . import deep\n    assert deep.RATE == RATE\n    return RATE\n"
    loaded: list[ModuleType] = []
    for rate in (1, 2):
        files = {"shop.py": text, "helper.py": f"RATE = {rate}", "lib/__init__.py": package, "lib/deep.py": f"RATE = {rate}"}
        loaded.append(load_path(write(tmp_path, files) / "shop.py"))
    for file in tmp_path.rglob("*.py"):
        file.unlink()
    for name in ("absolute", "named", "dotted", "renamed", "relative", "twice"):
        assert [getattr(each, name)() for each in loaded] == [1, 2], name
    assert [each.C().method() for each in loaded] == [1, 2]
    assert not {"helper", "lib", "shop", "lib.deep"} & set(sys.modules)


def test_a_package_is_loaded_whole(tmp_path: Path):
    first = load_path(write(tmp_path, PACKAGE) / "shop")
    second = load_path(write(tmp_path, {"shop/prices.py": PACKAGE["shop/prices.py"].replace("3", "4")}) / "shop")
    assert [each.Order().total() for each in (first, second)] == [3, 4]
    assert first.prices.tag() == "shop"
    assert first.models.p is first.prices is sys.modules[f"{first.__name__}.prices"]
    assert first.Order.__module__ == f"{first.__name__}.models"
    assert first.__path__ == [str(tmp_path / "shop")]


def test_a_file_of_a_package_is_loaded_as_its_member(tmp_path: Path):
    module = load_path(write(tmp_path, PACKAGE) / "shop" / "models.py")
    assert plain_name(module.__name__) == "shop.models"
    assert module.Order().total() == 3


def test_modules_that_import_each_other():
    circle = code_of(
        a="import b\nfrom b import later\nX = 1\ndef f(): return b.g()\n",
        b="import a\nY = 2\ndef g(): return a.X + Y\ndef later():\n    from a import X\n    return X\n",
    )
    module = load(circle)
    assert (module.f(), module.later(), module.b.a is module) == (3, 1, True)


def test_folders_without_an_init_are_packages_too(tmp_path: Path):
    write(tmp_path, {"shop.py": "import lib.deep.a\nfrom lib.deep import a\n", "lib/deep/a.py": "X = 1\n"})
    module = load_path(tmp_path / "shop.py")
    assert (module.lib.deep.a.X, module.a is module.lib.deep.a) == (1, True)


def test_a_star_import_takes_what_the_package_exports(tmp_path: Path):
    write(tmp_path, {"shop.py": "from lib import *\nX = a.X\n", "lib/__init__.py": "__all__ = ['a']\n", "lib/a.py": "X = 5\n"})
    assert load_path(tmp_path / "shop.py").X == 5


def test_what_is_outside_of_the_project_is_shared():
    first, second = (load(code_of(shop=f"import json, msgspec\nfrom json import decoder\nX = {number}")) for number in (1, 2))
    assert first.json is second.json is sys.modules["json"]
    assert first.decoder is second.decoder is sys.modules["json.decoder"]


def test_relative_names_given_at_run_time_stay_in_the_load():
    text = "import importlib\nfrom pkg import a\ndef f(): return importlib.import_module('.a', __package__)\n"
    sources = (Source("pkg", "pkg/__init__.py", ""), Source("pkg.a", "pkg/a.py", ""), Source("pkg.m", "pkg/m.py", text))
    module = load(Code("pkg.m", sources))
    assert module.f() is module.a


def test_a_file_that_was_not_recorded_is_not_found(tmp_path: Path):
    write(tmp_path, PACKAGE)
    text = "def f():\n    from shop import prices\ndef g():\n    import shop.prices\n"
    module = load(Code("shop", (Source("shop", "shop/__init__.py", text),)), root=tmp_path)
    with pytest.raises(ImportError, match="prices"):
        module.f()
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'shop\.prices'"):
        module.g()


# --- what tools see -------------------------------------------------------------------------------------------------------


def lines_of(function: typing.Any) -> str:
    try:
        function()
    except ZeroDivisionError as error:
        return "".join(traceback.format_exception(error))
    raise AssertionError("it did not fail")


def listing(function: typing.Any) -> str:
    """What pdb lists where it stops in a function."""
    shown = io.StringIO()
    debugger = pdb.Pdb(stdin=io.StringIO("list\ncontinue\n"), stdout=shown, nosigint=True, readrc=False)
    with pytest.raises(ZeroDivisionError):
        debugger.runcall(function)
    return shown.getvalue().replace("\t", " ").replace("  ->", "->")


def test_tracebacks_inspect_and_pdb_show_the_lines_that_ran(tmp_path: Path):
    file = tmp_path / "shop.py"
    loaded: list[ModuleType] = []
    for number in (1, 2):
        write(tmp_path, {"shop.py": "\n" * number + f"def f():\n    return {number} / 0\nclass C:\n    x = {number}\n"})
        loaded.append(load_path(file))
    file.write_text("# all is new\n" * 9)
    loaded.append(load(capture(loaded[0]), root=tmp_path))
    linecache.checkcache()
    for module, number in zip(loaded, (1, 2, 1), strict=True):
        assert f"return {number} / 0" in lines_of(module.f)
        assert inspect.getsource(module.f) == f"def f():\n    return {number} / 0\n"
        assert f"return {number} / 0" in listing(module.f)
        assert module.__file__ == str(file)


def test_code_that_says_what_the_file_says_goes_by_its_path(tmp_path: Path):
    write(tmp_path, {"shop.py": "def f(): pass\n"})
    first = load_path(tmp_path / "shop.py")
    assert first.f.__code__.co_filename == str(tmp_path / "shop.py")
    write(tmp_path, {"shop.py": "def f(): return 1\n"})
    second = load_path(tmp_path / "shop.py")
    assert second.f.__code__.co_filename == f"{tmp_path / 'shop.py'}@{second.__name__.partition('@')[2]}"
    unload(first)
    unload(second)
    assert load_path(tmp_path / "shop.py").f.__code__.co_filename == str(tmp_path / "shop.py")


def test_unload_takes_back_all_that_was_registered(tmp_path: Path):
    before = (set(sys.modules), list(sys.meta_path), set(linecache.cache))
    first = load_path(write(tmp_path, PACKAGE) / "shop")
    second = load_path(tmp_path / "shop")
    unload(first.prices)
    assert second.prices.tag() == "shop"
    assert inspect.getsource(second.prices.tag).startswith("def tag")
    assert first.Order().total() == 3
    unload(first)
    unload(second)
    unload(sys)
    assert (set(sys.modules), list(sys.meta_path), set(linecache.cache)) == before


# --- code that cannot be loaded -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "file", "problem"),
    [
        ({"shop.py": "x = 1\ndef (:\n"}, "shop.py", "line 2: SyntaxError: invalid syntax"),
        ({"shop.py": "x = 1\n  y = 1\n"}, "shop.py", "line 2: IndentationError: unexpected indent"),
        ({"shop.py": "\n\nimport nothing_there\n"}, "shop.py", "line 3: ModuleNotFoundError: No module named 'nothing_there'"),
        ({"shop.py": "\nx = 1 / 0\n"}, "shop.py", "line 2: ZeroDivisionError: division by zero"),
        ({"shop.py": "import json\njson.loads('{')\n"}, "shop.py", "line 2: JSONDecodeError: Expecting property name"),
        ({"shop.py": "import sys\nsys.exit(3)\n"}, "shop.py", "line 2: SystemExit: 3"),
        ({"shop.py": "raise KeyError\n"}, "shop.py", "line 1: KeyError"),
        ({"shop.py": "import helper\n", "helper.py": "\nx = y\n"}, "helper.py", "line 2: NameError: name 'y' is not defined"),
        ({"shop.py": "import helper\n", "helper.py": "\nx = (\n"}, "helper.py", "line 2: SyntaxError: '(' was never closed"),
        ({"shop.py": "from helper import x\n", "helper.py": ""}, "shop.py", "line 1: ImportError: cannot import name 'x'"),
        ({"shop.py": "import helper\n", "helper.py": "import nothing_there\n"}, "helper.py", "line 1: ModuleNotFoundError"),
    ],
)
def test_an_error_in_the_code_says_where_it_is(tmp_path: Path, files: dict[str, str], file: str, problem: str):
    before = (set(sys.modules), list(sys.meta_path), set(linecache.cache))
    with pytest.raises(LoadFailed) as failed:
        load_path(write(tmp_path, files) / "shop.py")
    assert failed.value.details["path"] == str(tmp_path / file)
    assert str(failed.value.details["problem"]).startswith(problem)
    assert failed.value.__cause__ is not None
    after = (set(sys.modules), list(sys.meta_path), set(linecache.cache))
    assert {name for name in after[0] - before[0] if "@" in name} == set()
    assert after[1] == before[1]
    assert not {name for name in after[2] - before[2] if str(tmp_path) in name}


def test_a_path_without_code_says_so(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "odd.py").write_bytes(b"# \xff\xfe\n")
    for name in ("gone.py", "empty", "notes.txt", "odd.py"):
        with pytest.raises(LoadFailed, match=name):
            load_path(tmp_path / name)


def test_recorded_code_without_its_main_module_says_so():
    with pytest.raises(LoadFailed, match="No module named 'shop'"):
        load(Code("shop", ()))


def test_an_interruption_goes_through_and_leaves_nothing():
    before = set(sys.modules)
    with pytest.raises(KeyboardInterrupt):
        load(code_of(shop="raise KeyboardInterrupt"))
    assert set(sys.modules) == before
