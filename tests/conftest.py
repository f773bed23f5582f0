"""What all tests share: which Postgres server they run on, and which engine stands behind a test's databases. And what
lint says of the functions in them is not what they are about, except in those of lint itself."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import kit
from tests.postgres import Databases, found, none_found

from retroact.errors import NoProject

#: Tests that cannot even be imported without the driver. The header says that they are left out, and why.
collect_ignore_glob = [] if importlib.util.find_spec("psycopg") else ["engine/postgres/*"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "sqlite: about SQLite's own promises, so it is not run on the other engines")
    config.addinivalue_line("filterwarnings", "ignore::retroact.function.lint.warn.DeterminismWarning")


def pytest_report_header() -> str:
    try:
        return f"postgres: {found()}"
    except NoProject as error:
        return f"postgres: NONE, its tests are not run. {error}"


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    none_found()
    made = Databases()
    yield made
    made.close()


@pytest.fixture
def postgres(databases: Databases, tmp_path: Path) -> Iterator[str]:
    """The address of an empty database."""
    yield databases.url(tmp_path)
    databases.give_back(tmp_path)


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Everything that the kit opens stands on this engine. See `every_engine`."""
    name: str = request.param
    if name == "postgres":
        kit.databases = request.getfixturevalue("databases")
    yield name
    if kit.databases is not None:
        kit.databases.give_back()
        kit.databases = None


@pytest.fixture
def on_every_engine(engine: str, tmp_path: Path) -> Iterator[None]:
    """Gives a test's databases to others when it has ended."""
    yield
    if kit.databases is not None:
        kit.databases.give_back(tmp_path)


def every_engine(metafunc: pytest.Metafunc) -> None:
    """Run a test on each engine, unless it is about one. A folder's conftest says so: see that of the workflows."""
    engines = ["sqlite"] if metafunc.definition.get_closest_marker("sqlite") else ["sqlite", "postgres"]
    metafunc.parametrize("engine", engines, indirect=True, scope="module")
