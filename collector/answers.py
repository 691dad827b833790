"""Answers of several experiments: a page of a list, those that several REFs name, a comparison."""

from collections.abc import Sequence

from qlog.v1 import collector_pb2

from collector import limits, patience
from collector.errors import InvalidRequestError, ResponseTooLargeError
from collector.filters.meaning import current_time
from collector.listing import Cursor, Query, decode_token, encode_token, list_page, parse_page_size
from collector.store import Store
from collector.validate import check_length
from collector.views import Views

_BASIC, _FULL = collector_pb2.EXPERIMENT_VIEW_BASIC, collector_pb2.EXPERIMENT_VIEW_FULL


def is_full(view: collector_pb2.ExperimentView, default: collector_pb2.ExperimentView) -> bool:
    """Whether a view has statistics.

    Raises:
        InvalidRequestError: there is none such.
    """
    if view not in (collector_pb2.EXPERIMENT_VIEW_UNSPECIFIED, _BASIC, _FULL):
        raise InvalidRequestError("view", f"there is no view {view}")
    return (view or default) == _FULL


def page(
    store: Store, views: Views, request: collector_pb2.ListExperimentsRequest
) -> collector_pb2.ListExperimentsResponse:
    """A page of a list; it ends early where it would be large.

    Raises:
        CollectorError: the request is wrong.
    """
    full = is_full(request.view, _BASIC)
    check_length(request.order_by, limits.MAX_ORDER_LENGTH, "order_by")
    check_length(request.page_token, limits.MAX_TOKEN_LENGTH, "page_token")
    query = Query(request.filter, request.order_by, request.include_running, full, current_time())
    size = parse_page_size(request.page_size)
    cursor = Cursor()
    if request.page_token:
        query, cursor = decode_token(query, request.page_token)
    found = list_page(store, views, query, cursor, size + 1)
    items = found.items
    response = collector_pb2.ListExperimentsResponse(total_size=found.total)
    page_bytes = 0
    for listed in items[:size]:
        patience.check()
        experiment = views.of(listed.item, full=full)
        page_bytes += experiment.ByteSize()
        if page_bytes > limits.PAGE_BYTES and response.experiments:
            break
        response.experiments.append(experiment)
    shown = len(response.experiments)
    if shown < len(items):
        response.next_page_token = encode_token(query, items[shown - 1].after)
    return response


def several(
    views: Views, request: collector_pb2.BatchGetExperimentsRequest
) -> collector_pb2.BatchGetExperimentsResponse:
    """The experiments that several REFs name.

    Raises:
        CollectorError: one of them names none, or they are too many.
    """
    full = is_full(request.view, _FULL)
    _check_refs(request.refs, 1, limits.MAX_REFS)
    response = collector_pb2.BatchGetExperimentsResponse()
    size = 0
    for place, ref in enumerate(request.refs):
        patience.check()
        experiment = views.get(ref, full=full, field=f"refs[{place}]")
        size = _bounded(size + experiment.ByteSize())
        response.experiments.append(experiment)
    return response


def comparison(
    views: Views, request: collector_pb2.CompareExperimentsRequest
) -> collector_pb2.CompareExperimentsResponse:
    """Two or more experiments, aligned.

    Raises:
        CollectorError: one of them is none, or they are too many.
    """
    from collector.compare import compare
    from collector.wire_compare import comparison_to_wire

    _check_refs(request.refs, 2, limits.MAX_COMPARED)
    records, experiments = [], []
    for place, ref in enumerate(request.refs):
        patience.check()
        field = f"refs[{place}]"
        records.append(views.record(ref, field))
        experiments.append(views.get(ref, full=False, field=field))
    response = comparison_to_wire(compare(records), experiments)
    _bounded(response.ByteSize())
    return response


def _check_refs(refs: Sequence[str], least: int, most: int) -> None:
    if not least <= len(refs) <= most:
        raise InvalidRequestError("refs", f"{len(refs)} experiments: between {least} and {most} can be asked for")


def _bounded(size: int) -> int:
    if size > limits.MAX_RESPONSE_BYTES:
        most = limits.MAX_RESPONSE_BYTES >> 20
        raise ResponseTooLargeError(f"the answer is larger than {most} MiB: ask for fewer experiments at a time")
    return size


__all__ = ["comparison", "is_full", "page", "several"]
