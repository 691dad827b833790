"""The packages with kernels for CUDA devices: mamba-ssm and causal-conv1d.

They are imported when tensors first lie on such a device, and never before: without a GPU they cannot be imported.
"""

import importlib
import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any

Kernel = Callable[..., Any]

# By package, as pip knows it: each function with the module that has it. Modules are named in full, so that one that
# mamba-ssm no longer exports at its top is found.
FUNCTIONS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "causal-conv1d": (("causal_conv1d", "causal_conv1d_fn"), ("causal_conv1d", "causal_conv1d_update")),
    "mamba-ssm": (
        ("mamba_ssm.ops.selective_scan_interface", "selective_scan_fn"),
        ("mamba_ssm.ops.triton.selective_state_update", "selective_state_update"),
        ("mamba_ssm.ops.triton.ssd_combined", "mamba_chunk_scan_combined"),
    ),
}

_log = logging.getLogger(__name__)


def load_functions() -> dict[str, tuple[Kernel, ...]]:
    """The functions of each package in the order of `FUNCTIONS`; one that cannot be imported is absent.

    What is absent is said in one warning, for all packages together.
    """
    loaded: dict[str, tuple[Kernel, ...]] = {}
    missing: dict[str, str] = {}
    for package, functions in FUNCTIONS.items():
        try:
            # What other packages deprecate among themselves is no news for whoever runs a model.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loaded[package] = tuple(getattr(importlib.import_module(module), name) for module, name in functions)
        except (ImportError, AttributeError) as error:
            missing[package] = (str(error).splitlines() or [type(error).__name__])[0]
    if missing:
        _log.warning(
            "%s cannot be imported (%s): on CUDA devices plain PyTorch runs instead, with the same results but slower; "
            "pip install '.[quantizer,cuda]' brings the kernels",
            " and ".join(missing),
            "; ".join(missing.values()),
        )
    return loaded


__all__ = ["FUNCTIONS", "Kernel", "load_functions"]
