"""A quantized model as generation sees it: prompts by the model itself, single tokens by the fused kernels' graphs."""

from quamba.decoding.replayed import ReplayedDecoder
from quamba.decoding.runner import DecodeRunner, Plan
from quamba.kernels.launch import Launch


class GraphedDecoder(ReplayedDecoder):
    """`quamba.generation.Decoder` over a plan.

    Args:
        plan: the model.
        how: to launch.
        graph: replay graphs; false: launch each kernel (interpreter).
    """

    def __init__(self, plan: Plan, how: Launch, *, graph: bool = True) -> None:
        super().__init__(plan.model, lambda size: DecodeRunner(plan, size, how, graph=graph))


__all__ = ["GraphedDecoder"]
