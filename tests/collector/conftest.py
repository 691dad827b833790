"""Fixtures of the collector's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from collector.store import Store
from tests.collector.builders import Client, opened, serving


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    return tmp_path / "logs"


@pytest.fixture
def client(log_dir: Path) -> Iterator[Client]:
    with serving(log_dir) as client:
        yield client


@pytest.fixture
def store(log_dir: Path) -> Iterator[Store]:
    with opened(log_dir) as store:
        yield store
