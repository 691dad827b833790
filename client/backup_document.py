"""The files of a backup, to be shown."""

from collections.abc import Mapping

from client.documents import Facts, Flat, Output
from client.text import escape, size


def backup_output(sizes: Mapping[str, int], place: str) -> Output:
    """The files of a copy with their sizes in bytes, by name."""
    facts = Facts(tuple((escape(name), size(count)) for name, count in sizes.items()), escape(place))
    data = {"directory": place, "files": [{"file": name, "size_bytes": count} for name, count in sizes.items()]}
    return Output((facts,), data, Flat(("file", "size_bytes"), list(sizes.items())))


__all__ = ["backup_output"]
