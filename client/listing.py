"""Which experiments a list holds, fetched page by page."""

from client.api import MAX_PAGE_SIZE, CollectorApi
from client.values import Experiment


def fetch(api: CollectorApi, *, last: int | None, filter_text: str = "", running: bool = False) -> list[Experiment]:
    """The last experiments by number, ascending; then those that run, by their start.

    Args:
        last: how many that have ended; None for all.
        running: also those that have not ended.

    Raises:
        QlogError: a call failed.
    """
    ended: list[Experiment] = []
    going: list[Experiment] = []
    token = ""
    while True:
        missing = MAX_PAGE_SIZE if last is None else last - len(ended)
        page = api.page(
            page_size=min(MAX_PAGE_SIZE, missing),
            page_token=token,
            newest_first=last is not None,
            filter_text=filter_text,
            running=running,
        )
        for experiment in page.experiments:
            (going if experiment.number is None else ended).append(experiment)
        token = page.next_token
        if not token or (last is not None and len(ended) >= last):
            break
    if last is not None:
        return ended[:last][::-1] + going[::-1]
    return ended + going


__all__ = ["fetch"]
