"""Which experiments a list holds, fetched page by page."""

from client.api import MAX_PAGE_SIZE, CollectorApi
from client.values import Experiment


def fetch(api: CollectorApi, *, last: int | None, filter_text: str = "", running: bool = False) -> list[Experiment]:
    """The last experiments by number, ascending; then those that run.

    Args:
        last: how many that have ended; None for all.
        running: also those that have not ended.

    Raises:
        QlogError: a call failed.
    """
    ended: list[Experiment] = []
    going: list[Experiment] = []
    run_in_all: int | None = None
    token = ""
    while True:
        missing = MAX_PAGE_SIZE if last is None or len(ended) >= last else last - len(ended)
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
        if not token:
            break
        if last is not None and len(ended) >= last:
            # A server may put those that run before or after all others: read on only where some are still to come.
            if running and run_in_all is None:
                run_in_all = page.total - api.page(page_size=1, filter_text=filter_text).total
            if len(going) >= (run_in_all or 0):
                break
    if last is not None:
        ended = ended[:last][::-1]
    return ended + going


__all__ = ["fetch"]
