"""The packages with kernels for CUDA devices: mamba-ssm and causal-conv1d.

They are imported when tensors first lie on such a device, and never before: without a GPU they cannot be imported.
"""

import importlib
import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
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

# Which settings of a kernel are fastest is measured where it first runs, for mamba-ssm's chunk scan a minute long: with
# this Triton keeps the outcome beside what it compiled, for later processes.
_TUNED_ONCE = "TRITON_CACHE_AUTOTUNING"

_log = logging.getLogger(__name__)


def load_functions() -> dict[str, tuple[Kernel, ...]]:
    """The functions of each package in the order of `FUNCTIONS`; one that cannot be imported is absent.

    What is absent is said in one warning, for all packages together.
    """
    os.environ.setdefault(_TUNED_ONCE, "1")
    loaded: dict[str, tuple[Kernel, ...]] = {}
    missing: dict[str, str] = {}
    for package, functions in FUNCTIONS.items():
        try:
            # What other packages deprecate among themselves is no news for whoever runs a model.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loaded[package] = tuple(_function(module, name) for module, name in functions)
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


def _function(module: str, name: str) -> Kernel:
    package, inside, _ = module.partition(".")
    with without_top(package) if inside else nullcontext():
        found: Kernel = getattr(importlib.import_module(module), name)
        return found


@contextmanager
def without_top(package: str) -> Iterator[None]:
    """In it a package's modules are imported without what its top imports; that follows when something there is used.

    mamba-ssm's top brings its models, and with them the transformers library: seconds of loading, for three functions.
    """
    spec = None if package in sys.modules else importlib.util.find_spec(package)
    if spec is None or spec.loader is None or spec.submodule_search_locations is None:
        yield
        return
    loader, top = spec.loader, importlib.util.module_from_spec(spec)

    def load(attribute: str) -> Any:
        # The interpreter and its libraries look for such names in every module.
        if attribute.startswith("__") and attribute not in ("__all__", "__version__"):
            raise AttributeError(f"module {package!r} has no attribute {attribute!r}")
        if vars(top).pop("__getattr__", None) is not None:
            loader.exec_module(top)
        return getattr(top, attribute)

    vars(top)["__getattr__"] = load
    sys.modules[package] = top
    try:
        yield
    except BaseException:
        del sys.modules[package]
        raise


__all__ = ["FUNCTIONS", "Kernel", "load_functions", "without_top"]
