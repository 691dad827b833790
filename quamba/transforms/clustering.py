"""Two clusterings that always give the number of clusters asked for: of rows by Ward, of ranks by cutting them."""

import numpy as np
import torch
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import pdist
from torch import Tensor


def ward(rows: Tensor, clusters: int) -> Tensor:
    """Cluster rows by Ward's criterion on Euclidean distances (Ward 1963).

    All merges of the tree but the last clusters - 1 are made, so the number is exact where rows are equal as well:
    cutting the tree at a height could not tell these apart.

    Args:
        rows: float64 [n, size], finite.
        clusters: 1 to n.

    Returns:
        The cluster of each row, int64 [n], numbered as their first rows come.
    """
    n = len(rows)
    members = {row: [row] for row in range(n)}
    if clusters < n:
        # Distances rather than rows: scipy takes a square matrix of rows for one of distances, and warns.
        tree = linkage(pdist(rows.numpy()), method="ward")
        for step, (left, right) in enumerate(tree[: n - clusters, :2].astype(int).tolist()):
            members[n + step] = members.pop(left) + members.pop(right)
    labels = torch.empty(n, dtype=torch.int64)
    for label, cluster_rows in enumerate(sorted(members.values(), key=min)):
        labels[cluster_rows] = label
    return labels


def segment(ranges: Tensor, segments: int) -> list[int]:
    """Cut ranks into segments, the sum of (length) (largest range)^2 the least there is.

    By dynamic programming over the last cut; of equal cuts the earliest.

    Args:
        ranges: float64 [P], the range of each rank.
        segments: 1 to P.

    Returns:
        As many cumulative ends, the last of them P.
    """
    P = len(ranges)
    length = np.arange(P)[None, :] - np.arange(P)[:, None] + 1
    inside = length > 0
    largest = np.maximum.accumulate(np.where(inside, ranges.numpy(), 0.0), axis=1)
    cost = np.where(inside, length * largest**2, np.inf)  # [first, last]
    best, cuts = cost[0], []  # best[last]: of ranks 0 to last in the segments so far
    for _ in range(segments - 1):
        total = best[:-1, None] + cost[1:]  # [last of those before, last]
        cuts.append(total.argmin(axis=0))
        best = total.min(axis=0)
    ends = [P]
    for cut in reversed(cuts):
        ends.append(int(cut[ends[-1] - 1]) + 1)
    return ends[::-1]


__all__ = ["segment", "ward"]
