"""Log likelihoods of tokens, batched by length, with the head computed only where something is scored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quamba.evals.interface import Evaluable, LanguageModel
from quamba.evals.relay import Compute, here

# Logits are computed in blocks of at most this many bytes: [2048, 50280] in float32 would be 412 MB.
LOGIT_BLOCK_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """How likely are `targets`, each at its place?

    Attributes:
        input_ids: what the model reads; never empty.
        targets: the tokens that follow its last `len(targets)` positions, one each; the empty continuation is certain.
    """

    input_ids: tuple[int, ...]
    targets: tuple[int, ...]

    @property
    def first(self) -> int:
        """The first scored position."""
        return len(self.input_ids) - len(self.targets)


def score_requests(
    loaded: Evaluable,
    requests: Sequence[TokenRequest],
    *,
    batch_size: int,
    on_scored: Callable[[int], None] = lambda _: None,
    compute: Compute = here,
) -> list[tuple[float, bool]]:
    """Each request's sum of its targets' log probabilities in nats, and whether every target is the likeliest token.

    A request whose input is the beginning of another's is scored from that one's forward pass: a causal model's hidden
    states do not depend on what follows. So the choices of a multiple-choice question cost one pass where they differ
    in their last token only.

    Args:
        loaded: the model.
        requests: in any order.
        batch_size: inputs in one forward pass, of nearly equal length.
        on_scored: called after each pass with the number of requests that it scored.
        compute: runs the passes.
    """
    results: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
    served = _share_inputs(requests)
    on_scored(sum(not request.targets for request in requests))
    carriers = sorted(served, key=lambda index: -len(requests[index].input_ids))
    for start in range(0, len(carriers), batch_size):
        batch = carriers[start : start + batch_size]
        members = [(row, index) for row, carrier in enumerate(batch) for index in served[carrier]]
        inputs = [requests[carrier].input_ids for carrier in batch]
        scored = [(row, requests[index]) for row, index in members]
        for (_, index), result in zip(members, compute(partial(_score_batch, loaded, inputs, scored)), strict=True):
            results[index] = result
        on_scored(len(members))
    return results


@torch.no_grad()
def target_log_probs(
    model: LanguageModel, hidden: Tensor, positions: NDArray[np.int64], targets: NDArray[np.int64], vocab_size: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Log probability of each target, and whether it is the likeliest token, over the whole (padded) vocabulary.

    Args:
        model: has the head.
        hidden: [N, D].
        positions: [P] rows of `hidden`, ascending, repeated where a row has several targets; every row occurs.
        targets: int64 [P].
        vocab_size: about V, from which the size of a block of logits follows.
    """
    log_probs = np.empty(len(targets), dtype=np.float64)
    likeliest = np.empty(len(targets), dtype=np.bool_)
    rows = max(1, LOGIT_BLOCK_BYTES // (4 * vocab_size))
    for first in range(0, len(hidden), rows):
        logits = model.head(hidden[first : first + rows]).float()
        normalizer = torch.logsumexp(logits, dim=-1)
        best = logits.argmax(dim=-1)
        begin, end = (int(edge) for edge in np.searchsorted(positions, (first, first + rows)))
        at = torch.from_numpy(positions[begin:end] - first).to(hidden.device)
        wanted = torch.from_numpy(targets[begin:end]).to(hidden.device)
        log_probs[begin:end] = (logits[at, wanted] - normalizer[at]).cpu().numpy()
        likeliest[begin:end] = (best[at] == wanted).cpu().numpy()
    return log_probs, likeliest


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of ids as int64 [Bt, L], padded with 0 on the right, and their lengths, int64 [Bt]."""
    ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    return torch.from_numpy(ids).to(device), torch.from_numpy(lengths).to(device)


def _share_inputs(requests: Sequence[TokenRequest]) -> dict[int, list[int]]:
    """Requests by the request whose forward pass serves them: the longest one that their input begins.

    In sorted order all extensions of an input follow it directly, so going backwards it is enough to look at the last.
    """
    served: dict[int, list[int]] = {}
    carrier = -1
    scored = (index for index, request in enumerate(requests) if request.targets)
    for index in sorted(scored, key=lambda index: requests[index].input_ids, reverse=True):
        input_ids = requests[index].input_ids
        if carrier < 0 or requests[carrier].input_ids[: len(input_ids)] != input_ids:
            carrier = index
            served[carrier] = []
        served[carrier].append(index)
    return served


@torch.no_grad()
def _score_batch(
    loaded: Evaluable, inputs: Sequence[tuple[int, ...]], scored: Sequence[tuple[int, TokenRequest]]
) -> list[tuple[float, bool]]:
    """Score (row of `inputs`, request) pairs by one forward pass."""
    input_ids, lengths = padded(inputs, loaded.device)
    width = input_ids.shape[1]
    # A place is a row and a position in it. Several requests may score the same place: its logits are computed once.
    places = np.concatenate([row * width + np.arange(r.first, len(r.input_ids)) for row, r in scored])
    targets = np.concatenate([np.asarray(r.targets, dtype=np.int64) for _, r in scored])
    order = np.argsort(places, kind="stable")
    unique, positions = np.unique(places[order], return_inverse=True)

    hidden = loaded.model.hidden_states(input_ids, lengths).flatten(0, 1)
    hidden = hidden[torch.from_numpy(unique).to(hidden.device)]
    sorted_log_probs, sorted_likeliest = target_log_probs(
        loaded.model, hidden, positions.astype(np.int64), targets[order], loaded.tokenizer.vocab_size
    )
    log_probs, likeliest = np.empty_like(sorted_log_probs), np.empty_like(sorted_likeliest)
    log_probs[order], likeliest[order] = sorted_log_probs, sorted_likeliest

    offsets = np.cumsum([0, *(len(request.targets) for _, request in scored[:-1])])
    sums = np.add.reduceat(log_probs, offsets)
    greedy = np.logical_and.reduceat(likeliest, offsets)
    return [(float(total), bool(exact)) for total, exact in zip(sums, greedy, strict=True)]


__all__ = ["LOGIT_BLOCK_BYTES", "TokenRequest", "padded", "score_requests", "target_log_probs"]
