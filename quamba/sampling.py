"""From logits to tokens: what makes some of them less likely or impossible, and the draw.

Each function takes float32 logits [Bt, V] and gives new ones. They are applied in the order in which they stand here,
which is that of Hugging Face's transformers.
"""

import math

import torch
from torch import Tensor

from quamba.generation_options import Sampling

# Smaller ones are 0 in float32; what they leave likely is the same.
_SMALLEST_TEMPERATURE = torch.finfo(torch.float32).tiny


def penalize_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Divide the logits of tokens that the text has already: CTRL (arXiv 1909.05858), section 4.1.

    Negative logits are multiplied instead, as all implementations do: divided they would become likelier.

    Args:
        logits: float32 [Bt, V].
        seen: which tokens each text has, bool [Bt, V].
        penalty: above 1 makes them less likely.
    """
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """logits / temperature, moved so that each row's largest is 0: no probability sees that, and nothing overflows."""
    return (logits - logits.amax(dim=-1, keepdim=True)) / max(temperature, _SMALLEST_TEMPERATURE)


def keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """Keep the k largest, and what equals the smallest of them; the others become -inf."""
    least = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < least, -math.inf)


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Keep the nucleus: the fewest tokens whose probabilities together reach top_p (arXiv 1904.09751, section 3.1).

    The likeliest token is always in it; the others become -inf.
    """
    ordered, places = logits.sort(dim=-1)
    # From the unlikeliest on: a token is out where it and all that are less likely make up no more than 1 - top_p.
    removed = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1.0 - top_p
    removed[..., -1] = False
    return logits.masked_fill(torch.empty_like(removed).scatter_(-1, places, removed), -math.inf)


def keep_min_p(logits: Tensor, min_p: float) -> Tensor:
    """Keep tokens at least min_p times as likely as the likeliest (arXiv 2407.01082, section 4); others become -inf."""
    probabilities = logits.softmax(dim=-1)
    return logits.masked_fill(probabilities < min_p * probabilities.amax(dim=-1, keepdim=True), -math.inf)


def process_logits(logits: Tensor, sampling: Sampling, seen: Tensor | None) -> Tensor:
    """All of the above that `sampling` asks for, in their order; where it is greedy, the penalty alone.

    Args:
        logits: float32 [Bt, V].
        sampling: what to apply.
        seen: which tokens each text has, bool [Bt, V]; needed where repetition is penalized.
    """
    if sampling.repetition_penalty != 1.0 and seen is not None:
        logits = penalize_repetition(logits, seen, sampling.repetition_penalty)
    if sampling.greedy:
        return logits
    logits = apply_temperature(logits, sampling.temperature)
    if sampling.top_k > 0:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p < 1.0:
        logits = keep_top_p(logits, sampling.top_p)
    if sampling.min_p > 0.0:
        logits = keep_min_p(logits, sampling.min_p)
    return logits


def draw_tokens(logits: Tensor, uniform: Tensor) -> Tensor:
    """Draw from softmax(logits): the first token up to which the probabilities sum to more than a uniform number.

    Args:
        logits: float32 [Bt, V], finite or -inf.
        uniform: in [0, 1), float64 [Bt].

    Returns:
        int64 [Bt], never a token of probability 0; where logits are NaN, the last.
    """
    reached = logits.double().softmax(dim=-1).cumsum(dim=-1)
    # The sum of all is 1 but for rounding; a number below 1 times that is below it.
    wanted = uniform[:, None] * reached[:, -1:]
    return torch.searchsorted(reached, wanted, right=True).squeeze(-1).clamp_(max=logits.shape[-1] - 1)


__all__ = [
    "apply_temperature",
    "draw_tokens",
    "keep_min_p",
    "keep_top_k",
    "keep_top_p",
    "penalize_repetition",
    "process_logits",
]
