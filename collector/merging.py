"""Lines of another store, appended to this one's log where they are not there yet."""

from collections.abc import Container

from collector.annotations import Annotation
from collector.catalog import Catalog
from collector.importing import Candidate, Tally, digest_of


def fresh_ones(
    catalog: Catalog, running: Container[str], group: list[Candidate], tally: Tally
) -> tuple[list[Candidate], int]:
    """Those that are to be appended, and how many are here already; the others are rejected. With the lock held.

    Args:
        catalog: settled.
        running: experiments that run here.
        group: lines.
        tally: told of what is rejected.
    """
    digests = _digests(catalog) if any(not item.experiment_id for item in group) else set()
    fresh: dict[str | bytes, Candidate] = {}
    present = 0
    for item in group:
        key = item.experiment_id or item.digest
        if item.experiment_id in running:
            tally.reject(item.place, f"experiment {item.experiment_id} is running here")
        elif key in fresh or key in digests or catalog.find(item.experiment_id) is not None:
            present += 1
        else:
            fresh[key] = item
    return list(fresh.values()), present


def append_all(catalog: Catalog, fresh: list[Candidate]) -> list[tuple[int, Annotation]]:
    """Append lines with one sync. With the lock held.

    Returns:
        What was said of them, by number.

    Raises:
        RetryError: none of them could be written.
    """
    first = catalog.known().count()
    if fresh:
        catalog.log.append(b"".join(item.text for item in fresh))
        catalog.index_new_lines()
    return [(number, item.annotation) for number, item in enumerate(fresh, first) if item.annotation != Annotation()]


def _digests(catalog: Catalog) -> set[bytes]:
    """Of all lines without an id."""
    found: set[bytes] = set()
    index = catalog.known()
    for start in range(0, index.count(), 1000):
        for entry in index.page(start, 1000, descending=False):
            if not entry.experiment_id and not entry.corrupt:
                found.add(digest_of(catalog.log.read(entry.offset, entry.length)))
    return found


__all__ = ["append_all", "fresh_ones"]
