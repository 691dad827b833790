"""Which experiments a list holds, fetched page by page."""

from client.api import MAX_PAGE_SIZE, CollectorApi
from client.values import Experiment

# Columns that are made of several fields.
_ORDERS = {"bits": ("config.w_bits", "config.a_bits")}


def fetch(
    api: CollectorApi, *, last: int | None, filter_text: str = "", running: bool = False, order_by: str = "number"
) -> list[Experiment]:
    """The last experiments that match by number, ascending; then those that run, by their start.

    Args:
        last: how many that have ended; None for all.
        order_by: the order of all, where `last` is None.
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
            order_by=order_by if last is None else "number desc",
            filter_text=filter_text,
            running=running,
        )
        for experiment in page.experiments:
            (going if experiment.number is None and last is not None else ended).append(experiment)
        token = page.next_token
        if not token or (last is not None and len(ended) >= last):
            break
    if last is not None:
        return ended[:last][::-1] + going[::-1]
    return ended + going


def fetch_sorted(
    api: CollectorApi, sort: str, *, last: int | None, filter_text: str = "", running: bool = False
) -> list[Experiment]:
    """The same, in the order of a key: what is absent last, ties by number.

    Args:
        sort: a column's name or a dotted path, - before it for downwards.

    Raises:
        QlogError: a call failed, or there is no such key.
    """
    down, name = sort.startswith("-"), sort.removeprefix("-")
    if name in ("number", "#"):
        found = fetch(api, last=last, filter_text=filter_text, running=running)
        return found[::-1] if down else found
    fields = _ORDERS.get(name, (name,))
    order_by = ", ".join(f"{field}{' desc' if down else ''}" for field in fields)
    if last is None:
        return fetch(api, last=None, filter_text=filter_text, running=running, order_by=order_by)
    found = fetch(api, last=last, filter_text=filter_text, running=running)
    numbers = [one.number for one in found if one.number is not None]
    # The same ones again, in the server's order: it alone knows how values of all kinds are ordered.
    since = f"(number >= {min(numbers)} OR number: null)" if numbers else "number: null"
    again = f"({filter_text}) {since}" if filter_text.strip() else since
    wanted = {(one.number, one.experiment_id) for one in found}
    ordered = fetch(api, last=None, filter_text=again, running=running, order_by=order_by)
    return [one for one in ordered if (one.number, one.experiment_id) in wanted]


__all__ = ["fetch", "fetch_sorted"]
