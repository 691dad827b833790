"""Log likelihoods of tokens, batched by length, with the head computed only where something is scored.

A GPU is never waited for but at the end: while it works on a batch, the host prepares the next and takes up the results
of the one before.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quamba.evals.batching import Batching, Fetched, to_device
from quamba.evals.interface import Evaluable, LanguageModel
from quamba.evals.relay import Compute, here

# Logits are computed in blocks of at most this many bytes: [2048, 50280] in float32 would be 412 MB. A GPU needs larger
# ones to be busy.
LOGIT_BLOCK_BYTES = 32 << 20
LOGIT_BLOCK_BYTES_CUDA = 256 << 20


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
    batch_size: int | None,
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
        batch_size: inputs in one forward pass, of nearly equal length; None: what suits the device
            (`quamba.evals.batching`).
        on_scored: called after each pass with the number of requests that it scored.
        compute: runs the passes.
    """
    results: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
    on_scored(sum(not request.targets for request in requests))
    # One pass runs while the results of the one before are taken up.
    running: tuple[list[int], _Scored] | None = None
    for members, launch in _passes(loaded, requests, Batching(loaded.device, batch_size)):
        started = (members, compute(launch))
        if running is not None:
            _take_up(*running, results, on_scored)
        running = started
    if running is not None:
        _take_up(*running, results, on_scored)
    return results


@torch.no_grad()
def target_log_probs(
    model: LanguageModel, hidden: Tensor, positions: NDArray[np.int64], targets: NDArray[np.int64], vocab_size: int
) -> Tensor:
    """Log probability of each target, and whether it is the likeliest token, over the whole (padded) vocabulary.

    Args:
        model: has the head.
        hidden: [N, D].
        positions: [P] rows of `hidden`, ascending, repeated where a row has several targets; every row occurs.
        targets: int64 [P].
        vocab_size: about V, from which the size of a block of logits follows.

    Returns:
        float32 [2, P] on the device of `hidden`: log probabilities; 1 where the target is the likeliest, else 0.
    """
    found = torch.empty(2, len(targets), dtype=torch.float32, device=hidden.device)
    block_bytes = LOGIT_BLOCK_BYTES_CUDA if hidden.device.type == "cuda" else LOGIT_BLOCK_BYTES
    rows = max(1, block_bytes // (4 * vocab_size))
    places = to_device(np.stack([positions, targets]), hidden.device)
    for first in range(0, len(hidden), rows):
        logits = model.head(hidden[first : first + rows]).float()
        normalizer = torch.logsumexp(logits, dim=-1)
        best = logits.argmax(dim=-1)
        begin, end = (int(edge) for edge in np.searchsorted(positions, (first, first + rows)))
        at, wanted = places[0, begin:end] - first, places[1, begin:end]
        found[0, begin:end] = logits[at, wanted] - normalizer[at]
        found[1, begin:end] = best[at] == wanted
    return found


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of ids as int64 [Bt, L], padded with 0 on the right, and their lengths, int64 [Bt]."""
    ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    return to_device(ids, device), to_device(lengths, device)


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


@dataclass(frozen=True, slots=True)
class _Scored:
    """What a pass found, on its way to the host.

    Attributes:
        found: float32 [2, P], as `target_log_probs` has it.
        order: int64 [P], the place of each target among all targets of the pass' requests.
        offsets: int64 [M], where each request's targets begin.
    """

    found: Fetched
    order: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def results(self) -> list[tuple[float, bool]]:
        """Of each request."""
        found = self.found.numpy()
        log_probs, likeliest = np.empty(len(self.order)), np.empty(len(self.order), dtype=np.bool_)
        log_probs[self.order], likeliest[self.order] = found[0], found[1] != 0
        sums = np.add.reduceat(log_probs, self.offsets)
        greedy = np.logical_and.reduceat(likeliest, self.offsets)
        return [(float(total), bool(exact)) for total, exact in zip(sums, greedy, strict=True)]


def _passes(
    loaded: Evaluable, requests: Sequence[TokenRequest], batching: Batching
) -> Iterator[tuple[list[int], Callable[[], _Scored]]]:
    """Requests that one forward pass scores, and what starts it; long inputs first."""
    served = _share_inputs(requests)
    carriers = sorted(served, key=lambda index: -len(requests[index].input_ids))
    start = 0
    while start < len(carriers):
        batch = carriers[start : start + batching.rows(len(requests[carriers[start]].input_ids))]
        start += len(batch)
        members = [(row, index) for row, carrier in enumerate(batch) for index in served[carrier]]
        inputs = [requests[carrier].input_ids for carrier in batch]
        scored = [(row, requests[index]) for row, index in members]
        yield [index for _, index in members], partial(_start_pass, loaded, inputs, scored, batching)


def _take_up(
    members: list[int], scored: _Scored, results: list[tuple[float, bool]], on_scored: Callable[[int], None]
) -> None:
    for index, result in zip(members, scored.results(), strict=True):
        results[index] = result
    on_scored(len(members))


@torch.no_grad()
def _start_pass(
    loaded: Evaluable, inputs: Sequence[tuple[int, ...]], scored: Sequence[tuple[int, TokenRequest]], batching: Batching
) -> _Scored:
    """Score (row of `inputs`, request) pairs by one forward pass."""
    input_ids, lengths = padded(inputs, loaded.device)
    width = input_ids.shape[1]
    # A place is a row and a position in it. Several requests may score the same place: its logits are computed once.
    places = np.concatenate([row * width + np.arange(r.first, len(r.input_ids)) for row, r in scored])
    targets = np.concatenate([np.asarray(r.targets, dtype=np.int64) for _, r in scored])
    order = np.argsort(places, kind="stable")
    unique, positions = np.unique(places[order], return_inverse=True)

    with batching.watched(input_ids.numel()):
        hidden = loaded.model.hidden_states(input_ids, lengths).flatten(0, 1)
        found = target_log_probs(
            loaded.model,
            hidden[to_device(unique, hidden.device)],
            positions.astype(np.int64),
            targets[order],
            loaded.tokenizer.vocab_size,
        )
    offsets = np.cumsum([0, *(len(request.targets) for _, request in scored[:-1])])
    return _Scored(Fetched(found), order, offsets)


__all__ = [
    "LOGIT_BLOCK_BYTES",
    "LOGIT_BLOCK_BYTES_CUDA",
    "TokenRequest",
    "padded",
    "score_requests",
    "target_log_probs",
]
