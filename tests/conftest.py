"""What all tests share: which Postgres server they run on, and which engine stands behind a test's databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import kit
from tests.postgres import Databases, found, none_found

from retroact.errors import NoProject


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "sqlite: about SQLite's own promises, so it is not run on the other engines")


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
    databases.give_back()


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Everything that the kit opens stands on this engine. See `every_engine`."""
    name: str = request.param
    if name == "sqlite":
        yield name
        return
    made: Databases = request.getfixturevalue("databases")
    kit.databases = made
    yield name
    kit.databases = None
    made.give_back()


def every_engine(metafunc: pytest.Metafunc) -> None:
    """Run a folder's tests on each engine, but those that are about one: `pytest_generate_tests = every_engine` in its conftest."""
    metafunc.fixturenames.insert(0, "engine")
    engines = ["sqlite"] if metafunc.definition.get_closest_marker("sqlite") else ["sqlite", "postgres"]
    metafunc.parametrize("engine", engines, indirect=True, scope="function")
