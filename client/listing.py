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
    token = ""
    while True:
        page_size = MAX_PAGE_SIZE if last is None else min(MAX_PAGE_SIZE, last + len(going) or 1)
        page = api.page(
            page_size=page_size,
            page_token=token,
            newest_first=last is not None,
            filter_text=filter_text,
            running=running,
        )
        for experiment in page.experiments:
            (going if experiment.number is None else ended).append(experiment)
        token = page.next_token
        enough = last is not None and len(ended) >= last
        if not token or (enough and not (running and _more_run(api, page.total, filter_text, bool(going)))):
            break
    if last is not None:
        ended = ended[:last][::-1]
    return ended + going


def _more_run(api: CollectorApi, total: int, filter_text: str, seen: bool) -> bool:
    """Whether experiments that run may be on later pages: a server may put them before or after all others."""
    return not seen and total > api.page(page_size=1, filter_text=filter_text).total


__all__ = ["fetch"]
