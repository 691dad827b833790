"""Where tests of kernels run: on a GPU where there is one, in Triton's interpreter otherwise."""

import pytest
import torch
from torch import Tensor

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
# Launches can overlap from capability 9.0 on.
PDL = GPU and torch.cuda.get_device_capability() >= (9, 0)
# Of shapes that the interpreter has no time for.
REAL = pytest.mark.gpu


def codes(*shape: int) -> Tensor:
    """Any int8."""
    return torch.randint(-128, 128, shape, dtype=torch.int8, device=DEVICE)


def sqnr_db(found: Tensor, expected: Tensor) -> float:
    """How far the error is below the signal."""
    error = (found.double() - expected.double()).square().sum().clamp(min=1e-300)
    return float(10 * torch.log10(expected.double().square().sum() / error))
