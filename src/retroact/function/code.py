"""What ran, kept so that it can run again: the text of a project's modules, and loading it beside any other version of itself.

A `Code` is a value: the main module and every module of the same project that it imports, by name and text. `capture` takes it
from modules that Python imported, `load` makes modules of it again, with no file at hand. Each load is a world of its own:
its modules are registered as `shop@3f2a91` and `shop@3f2a91.models`, and carry a `__builtins__` whose `__import__` puts the tag
into every name of the project before Python's own machinery sees it. So everything that looks a module up by name (dataclasses,
type hints, msgspec, inspect) finds the right version, imports inside functions do too whenever they are executed, and circular
imports, packages and import locks are Python's own. Nothing is ever registered under a project's real name.

What is not recorded: files that are not Python source, and modules that are named only at run time (`import_module(name)`).

This module must not know what a transaction, a step or a trace is: here code is modules and what they import.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import importlib
import importlib.util
import io
import itertools
import linecache
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path, PurePosixPath
from types import ModuleType

from retroact.digest import blake2b
from retroact.errors import LoadFailed, SourceMissing
from retroact.function.names import plain_name

INSTALLED = frozenset({"site-packages", "dist-packages"})


@dataclass(frozen=True)
class Source:
    """The text of one module."""

    name: str
    """As it is imported: `shop` or `shop.models`."""
    path: str
    """Where its file lies, from the project's root, with forward slashes."""
    text: str

    @property
    def hash(self) -> str:
        """What the text is known by; neither name nor path is part of it."""
        return _digest(self.text)

    @property
    def package(self) -> str:
        """The package that a relative import in this module starts from; empty for a module outside of any package."""
        is_package = PurePosixPath(self.path).name == "__init__.py"
        return self.name if is_package else self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Code:
    """Everything of a project that is needed to run its main module again."""

    main: str
    sources: tuple[Source, ...]
    """Sorted by name; the main module is one of them."""

    @property
    def hash(self) -> str:
        """What the code is known by. The main module is part of it: two that import each other have the same sources."""
        return _digest("\n".join([self.main, *(f"{source.name} {source.hash}" for source in self.sources)]))


@dataclass(frozen=True)
class Project:
    """A main module, and how the modules of its project are found by the names they are imported under."""

    main: str
    find: Callable[[str], Source | None]
    """None for what is not of the project. Raises OSError, SyntaxError or UnicodeError when a file cannot be read."""


def project_of(module: ModuleType) -> Project:
    """The project that an imported or loaded module is the main module of.

    Raises SourceMissing if the module has no source file.
    """
    loading = getattr(module, "__loader__", None)
    if isinstance(loading, _Load):
        return Project(plain_name(module.__name__), loading.sources.get)
    name, file = _whereabouts(module)
    return Project(name, _Folder(name, file).imported)


def capture(module: ModuleType) -> Code:
    """The code of an imported module and of what it imports from its project, read from their files as they are now.

    Of a module that `load` or `load_path` made, it is what was loaded, whatever the files say today. A script (`__main__`) goes
    by the name of its file.
    Raises SourceMissing if the module has no source file (REPL, notebook, exec), or if a file cannot be read.
    """
    project = project_of(module)
    try:
        return _collect(project)
    except (OSError, SyntaxError, UnicodeError) as error:
        raise SourceMissing(function=project.main, problem=str(error)) from error


def captured(modules: Iterable[str]) -> dict[str, Code]:
    """The code of those of the modules whose source is at hand, by the module's name."""
    codes: dict[str, Code] = {}
    for name in set(modules):
        module = sys.modules.get(name)
        if module is not None:
            with contextlib.suppress(SourceMissing):
                codes[name] = capture(module)
    return codes


def load_path(path: Path) -> ModuleType:
    """Import a .py file or a package folder freshly, beside every version of it that is already loaded.

    Raises LoadFailed if there is no such code, or if executing it raises; the original error is its cause.
    """
    project, root = project_at(path)
    try:
        code = _collect(project)
    except (OSError, SyntaxError, UnicodeError) as error:
        raise LoadFailed(path=path, problem=f"{type(error).__name__}: {error}") from error
    return load(code, root=root)


def project_at(path: Path) -> tuple[Project, Path]:
    """The project that a .py file or a package folder is of, as it lies on disk, and the folder that its paths start from.

    Raises LoadFailed if there is no such code. Nothing is read yet.
    """
    file = _absolute(path)
    if file.is_dir():
        file /= "__init__.py"
    if file.suffix != ".py" or not file.is_file():
        raise LoadFailed(path=path, problem="it is neither a .py file nor a folder with an __init__.py")
    folder = _Folder(_name_on_disk(file), file)
    return Project(folder.main, folder.on_disk), folder.root


def load(code: Code, *, root: Path | None = None) -> ModuleType:
    """Make modules of recorded code and return the main one. No file needs to exist.

    `root` is the folder that the recorded paths start from, for `__file__`; it is the current folder if it is not given.
    Raises LoadFailed if executing the code raises; the original error is its cause, and nothing stays registered.
    """
    loading = _begin(code, root or Path.cwd())
    sys.meta_path.insert(0, loading)
    try:
        return importlib.import_module(loading.unique(code.main))
    except (Exception, SystemExit) as error:
        loading.forget()
        path, problem = _place(error, loading)
        raise LoadFailed(path=path, problem=problem) from error
    except BaseException:
        loading.forget()
        raise


def unload(module: ModuleType) -> None:
    """Take back what loading this module registered, for all modules of the same load.

    Functions that are still held go on working, except for imports that they have yet to execute. A module that Python imported
    in the ordinary way is left as it is.
    """
    loading = getattr(module, "__loader__", None)
    if isinstance(loading, _Load):
        loading.forget()


def modules_of(module: ModuleType, code: Code) -> list[ModuleType]:
    """The modules of a project that are there now: those of the load that made its main module, or those that Python imported."""
    loading = getattr(module, "__loader__", None)
    if isinstance(loading, _Load):
        return [each for name, each in sys.modules.copy().items() if name.partition(".")[0].endswith(f"@{loading.tag}")]
    return [module, *(each for source in code.sources if (each := sys.modules.get(source.name)) is not None and each is not module)]


@functools.lru_cache(maxsize=256)
def parse(text: str) -> ast.Module:
    """The syntax tree of a text, parsed once. It is shared: nobody may change it. Raises SyntaxError and ValueError."""
    return ast.parse(text)


def absolute_name(package: str, level: int, name: str | None) -> str:
    """The module that `from ...name import x` names inside a package; empty if it climbs out of the project."""
    if level == 0:
        return name or ""
    parts = package.split(".")
    base = ".".join(parts[: len(parts) - level + 1])
    return f"{base}.{name}" if base and name else base


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


# --- Finding: which module is of the project, and where its text is -------------------------------------------------------


@dataclass(frozen=True)
class _Folder:
    """The folder tree that a main module's project lives in."""

    main: str
    file: Path

    @functools.cached_property
    def root(self) -> Path:
        """The folder that the project's absolute imports start from: of a package's module, the top package's parent."""
        parts = self.main.split(".")
        tail = (*parts, "__init__.py") if self.file.name == "__init__.py" else (*parts[:-1], f"{parts[-1]}.py")
        return self.file.parents[len(tail) - 1] if self.file.parts[-len(tail) :] == tail else self.file.parent

    def imported(self, name: str) -> Source | None:
        """The source that `name` means in this process: what Python imported, else what it would import."""
        module = sys.modules.get(name)
        if name == self.main or module is None:
            return self.on_disk(name)
        file = getattr(module, "__file__", None)
        return self._source(name, _absolute(Path(file))) if isinstance(file, str) else None

    def on_disk(self, name: str) -> Source | None:
        """The source that `name` means in the folder, whatever this process has imported."""
        if name == self.main:
            return self._source(name, self.file)
        if name.partition(".")[0] in sys.builtin_module_names:
            return None
        stem = self.root.joinpath(*name.split("."))
        files = (stem / "__init__.py", stem.with_name(f"{stem.name}.py"))
        return next((self._source(name, file) for file in files if file.is_file()), None)

    def _source(self, name: str, file: Path) -> Source | None:
        if not self._owns(name, file):
            return None
        return Source(name, file.relative_to(self.root).as_posix(), _read(file))

    def _owns(self, name: str, file: Path) -> bool:
        if file == self.file:
            return True
        if file.suffix != ".py" or not file.is_relative_to(self.root):
            return False
        top = name.partition(".")[0]
        # Two copies of the platform in one process would not know each other's functions.
        if top == __name__.partition(".")[0]:
            return False
        # An installed application shares its folder with every library there is: only its own package is the project.
        if self.root.name in INSTALLED:
            return top == self.main.partition(".")[0]
        library = Path(sysconfig.get_path("stdlib"))
        in_library = library.is_relative_to(self.root) and file.is_relative_to(library)
        return not in_library and INSTALLED.isdisjoint(file.relative_to(self.root).parts)


def _whereabouts(module: ModuleType) -> tuple[str, Path]:
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        raise SourceMissing(function=module.__name__, problem="it was not imported from a file")
    path = _absolute(Path(file))
    if path.suffix != ".py" or not path.is_file():
        raise SourceMissing(function=module.__name__, problem=f"{path} is not a Python source file")
    if module.__name__ != "__main__":
        return module.__name__, path
    return (module.__spec__.name if module.__spec__ else _stem(path)), path


def _name_on_disk(file: Path) -> str:
    """The name that a file is imported under: its stem, after every package that it lies in."""
    names = [] if file.name == "__init__.py" else [_stem(file)]
    folder = file.parent
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    return ".".join(names)


def _stem(file: Path) -> str:
    # A dot in a file's name would be read as a package.
    return file.stem.replace(".", "_")


def _absolute(file: Path) -> Path:
    # Not resolve(): a link's own place says which package it belongs to.
    return Path(os.path.abspath(file))  # noqa: PTH100


def _read(file: Path) -> str:
    return importlib.util.decode_source(file.read_bytes())


def _collect(project: Project) -> Code:
    """Follow the imports of the main module through the project."""
    found: dict[str, Source] = {}
    seen: set[str] = set()
    wanted = list(_prefixes(project.main))
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        if name.endswith(".*"):
            source = project.find(name[:-2])
            wanted.extend(f"{name[:-2]}.{each}" for each in (_exported(source) if source else ()))
            continue
        source = project.find(name)
        if source is not None:
            found[name] = source
            wanted.extend(_imports(source))
    return Code(project.main, tuple(found[name] for name in sorted(found)))


def _imports(source: Source) -> Iterator[str]:
    """Every name that may be a module this one imports. `pkg.*` stands for what the package exports."""
    for node in _nodes(source):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _prefixes(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = absolute_name(source.package, node.level, node.module)
            for alias in node.names if base else ():
                yield from _prefixes(f"{base}.{alias.name}")


def _exported(source: Source) -> Iterator[str]:
    """The names in a literal `__all__`: `from pkg import *` imports the submodules among them."""
    for node in _nodes(source):
        targets = node.targets if isinstance(node, ast.Assign) else ()
        if isinstance(node, ast.Assign) and any(isinstance(each, ast.Name) and each.id == "__all__" for each in targets):
            for item in ast.walk(node.value):
                if isinstance(item, ast.Constant) and isinstance(item.value, str):
                    yield item.value


def _nodes(source: Source) -> Iterator[ast.AST]:
    try:
        return ast.walk(parse(source.text))
    except (SyntaxError, ValueError):
        # It imports nothing, since it cannot be executed. Whoever executes it gets the error, with its place.
        return iter(())


def _prefixes(name: str) -> Iterator[str]:
    return itertools.accumulate(name.split("."), lambda package, part: f"{package}.{part}")


# --- Loading: one world of modules for each load --------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Load(MetaPathFinder, InspectLoader):
    """One load of one code: finds and executes the modules that carry its tag, and no others."""

    main: str
    tag: str
    root: Path
    sources: Mapping[str, Source]
    """By plain name."""
    namespaces: frozenset[str]
    """Packages without an __init__.py, which have no source."""
    filenames: Mapping[str, str]
    """By plain name: what linecache, and so every traceback and debugger, knows the lines by."""

    @functools.cached_property
    def builtins(self) -> dict[str, object]:
        """What the modules of this load find as builtins: Python's own, but for the names of imports."""
        return {**vars(builtins), "__import__": self._import}

    def unique(self, name: str) -> str:
        """The name under which this load's version of a module is registered."""
        top, dot, rest = name.partition(".")
        return f"{top}@{self.tag}{dot}{rest}"

    def find_spec(self, fullname: str, *_where: object) -> ModuleSpec | None:
        """Find a module of this load. Raises ModuleNotFoundError if it carries the tag but was not recorded."""
        if not fullname.partition(".")[0].endswith(f"@{self.tag}"):
            return None
        name = plain_name(fullname)
        source = self.sources.get(name)
        if source is None and name not in self.namespaces:
            # Not None: the next finder would take a file of today for a module of the record.
            raise ModuleNotFoundError(f"No module named {name!r}", name=fullname)
        is_package = source is None or source.package == name
        origin = str(self.root / source.path) if source else None
        spec = ModuleSpec(fullname, self, origin=origin, is_package=is_package)
        if is_package and origin:
            spec.submodule_search_locations = [str(Path(origin).parent)]
        return spec

    def exec_module(self, module: ModuleType) -> None:
        """Execute a module's recorded text in it."""
        name = plain_name(module.__name__)
        source = self.sources.get(name)
        if source is None:
            return
        module.__file__ = str(self.root / source.path)
        vars(module)["__builtins__"] = self.builtins
        exec(compile(source.text, self.filenames[name], "exec", dont_inherit=True), vars(module))  # noqa: S102

    def get_source(self, fullname: str) -> str | None:
        """The recorded text, for linecache and inspect."""
        source = self.sources.get(plain_name(fullname))
        return source.text if source else None

    def is_package(self, fullname: str) -> bool:
        """Whether the module was recorded as a package."""
        name = plain_name(fullname)
        return name in self.namespaces or self.sources[name].package == name

    def forget(self) -> None:
        """Take back everything that was registered."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        for name in [name for name in sys.modules.copy() if name.partition(".")[0].endswith(f"@{self.tag}")]:
            del sys.modules[name]
        others = {name for each in sys.meta_path if isinstance(each, _Load) for name in each.filenames.values()}
        for name in set(self.filenames.values()) - others:
            linecache.cache.pop(name, None)

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,  # noqa: A002 (these are the names that callers of __import__ use)
        locals: Mapping[str, object] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        # Relative names start from the module's own __package__, which carries the tag already. A namespace may be shared
        # with a library, so of it only what was recorded is the project's.
        if level == 0 and (name.partition(".")[0] in self.sources or name in self.sources or name in self.namespaces):
            name = self.unique(name)
        return builtins.__import__(name, globals, locals, fromlist or (), level)


def _begin(code: Code, root: Path) -> _Load:
    sources = {source.name: source for source in code.sources}
    parents = frozenset(prefix for name in sources for prefix in _prefixes(name))
    tag = _claim(code.hash[:6])
    filenames = {name: _remember(str(root / source.path), source.text, tag) for name, source in sources.items()}
    return _Load(code.main, tag, root, sources, parents - sources.keys(), filenames)


def _claim(version: str) -> str:
    """A tag that no other load has, also when two threads load the same code at once."""
    for number in itertools.count(1):
        tag = version if number == 1 else f"{version}-{number}"
        claim = ModuleType(f"@{tag}", "Marks a tag as taken.")
        if sys.modules.setdefault(claim.__name__, claim) is claim:
            return tag
    raise AssertionError("counting ended")


def _remember(path: str, text: str, tag: str) -> str:
    """Tell linecache the lines of a text, and return the file name it knows them by.

    That is the path itself if the file says the same today, so that breakpoints, coverage and links to it work. Where the path
    stands for other lines, on disk or in a load that is still there, the tag sets this version apart.
    """
    lines = io.StringIO(text).readlines()
    known = linecache.cache.get(path)
    # An entry without a time is one that was put there to stay.
    pinned = known is not None and len(known) > 1 and known[1] is None and known[2] != lines
    name = f"{path}@{tag}" if pinned or not _says(path, text) else path
    linecache.cache[name] = (len(text), None, lines, name)
    return name


def _says(path: str, text: str) -> bool:
    try:
        return _read(Path(path)) == text
    except (OSError, SyntaxError, UnicodeError):
        return False


def _place(error: BaseException, loading: _Load) -> tuple[str, str]:
    """The project's file that an error comes from, and what and where in it the problem is."""
    paths = {filename: str(loading.root / loading.sources[name].path) for name, filename in loading.filenames.items()}
    main = paths.get(loading.filenames.get(loading.main, ""), loading.main)
    if isinstance(error, SyntaxError) and error.filename in paths:
        return paths[error.filename], f"line {error.lineno}: {type(error).__name__}: {error.msg}"
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    place = (main, what)
    step = error.__traceback__
    while step is not None:
        path = paths.get(step.tb_frame.f_code.co_filename)
        place = (path, f"line {step.tb_lineno}: {what}") if path else place
        step = step.tb_next
    return place
