"""Before any test: without a GPU, Triton's kernels run in its interpreter, which it decides when it is imported. Tests
that run side by side have a thread each: torch's teams would wait for each other.

After each: logging is as it was, whatever server ran in this process.
"""

import os
from collections.abc import Iterator

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is imported, here and in what tests start.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from tests.logs import stop_logging

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def _logging_is_as_before() -> Iterator[None]:
    yield
    stop_logging()
