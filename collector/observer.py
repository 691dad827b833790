"""What a store tells of itself while it works: for metrics, and for nothing that the store depends on."""

from collections.abc import Callable
from dataclasses import dataclass


def _nothing(*_: object) -> None:
    """Nobody asked."""


@dataclass(frozen=True, slots=True)
class StoreObserver:
    """Callbacks, from the store's own threads; they must neither raise nor wait.

    Attributes:
        synced: (file name, seconds) - a sync of the disk is done; of the database of running experiments, a commit.
        set_aside: (file name, bytes) - the end of a file was torn, or a database damaged: kept under another name.
        committed: (batches, events) - of experiments are on disk, with one sync.
        lost: () - an experiment was not heard of for a lease, and has its line.
        dropped: (kind, count) - events that an experiment's record counts as lost, when it gets its line.
    """

    synced: Callable[[str, float], None] = _nothing
    set_aside: Callable[[str, int], None] = _nothing
    committed: Callable[[int, int], None] = _nothing
    lost: Callable[[], None] = _nothing
    dropped: Callable[[str, int], None] = _nothing


SILENT = StoreObserver()

__all__ = ["SILENT", "StoreObserver"]
