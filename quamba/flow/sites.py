"""Which tensors are watched in each family, and how.

Only tensors that a quantizer uses are here; probes without a reader cost time and are left out.
"""

from collections.abc import Mapping

from quamba.models.config import Family

# True: a percentile observer watches it, others take the absolute maximum.
MAMBA1_SITES: Mapping[str, bool] = {
    "in_proj:input": False,
    "in_proj:output": False,
    "x_proj:input": True,
    "x_proj:output": False,
    "dt_proj:output": False,
    "ssm_state_act:input": True,
    "out_proj:input": False,
}
MAMBA2_SITES: Mapping[str, bool] = {
    "in_proj:input": False,
    "z_act:input": False,
    "x_conv_in:input": False,
    "B_conv_in:input": False,
    "C_conv_in:input": False,
    "dt_act:input": False,
    "x_conv_out:input": True,
    "B_conv_out:input": False,
    "C_conv_out:input": False,
    "ssm_state_act:input": True,
    "out_proj:input": False,
}
SITES: Mapping[Family, Mapping[str, bool]] = {"mamba1": MAMBA1_SITES, "mamba2": MAMBA2_SITES}
HEAD_SITE = "lm_head:input"


def tensor_name(layer: int, op: str) -> str:
    """`layer_{i}.{op}`, as records spell it; the head's tensor stands alone."""
    return op if op == HEAD_SITE else f"layer_{layer}.{op}"


__all__ = ["HEAD_SITE", "MAMBA1_SITES", "MAMBA2_SITES", "SITES", "tensor_name"]
