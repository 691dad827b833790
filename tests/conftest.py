"""Before any test: without a GPU, Triton's kernels run in its interpreter, which it decides when it is imported.

After each: logging is as it was, whatever server ran in this process.
"""

import os
from collections.abc import Iterator

import pytest
import torch

from tests.logs import stop_logging

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def _logging_is_as_before() -> Iterator[None]:
    yield
    stop_logging()
