"""All files of an open store, checked (`collector.fsck`)."""

from collections.abc import Callable, Iterator

from collector.catalog import Catalog
from collector.fsck import Checked, Finding, check_events, check_log, check_meta, check_set_aside
from collector.names import INFLIGHT_NAME, LOG_NAME, META_NAME
from collector.subjects import Subject


def check_all(catalog: Catalog, runs: Callable[[str], bool], checked: Checked) -> Iterator[Finding]:
    """Read everything that is committed now, and tell what is wrong.

    Args:
        catalog: of the store; as of now.
        runs: whether an experiment runs.
        checked: counts what is read.
    """

    def is_known(subject: Subject) -> bool:
        return catalog.place(subject) is not None or runs(str(subject.get("experiment_id")))

    meta_size, log_size, count = catalog.meta.size, catalog.log.committed, catalog.known().count()
    directory = catalog.path.parent
    if log_size:
        yield from check_log(catalog.path, log_size, checked)
    if checked.lines != count and log_size == catalog.log.committed:
        message = f"{count} lines are served, {checked.lines} are in the file: restart the collector"
        yield Finding("INDEX_DISAGREES", "ERROR", LOG_NAME, message)
    if meta_size:
        yield from check_meta(directory / META_NAME, meta_size, is_known, checked)
    if catalog.read_only and catalog.log.size() > log_size:
        message = "bytes behind the last newline, never acknowledged: set aside when the store is next written"
        yield Finding("TORN_TAIL", "WARNING", LOG_NAME, message, log_size)
    yield from check_events(directory / INFLIGHT_NAME, checked)
    yield from check_set_aside(directory)


__all__ = ["check_all"]
