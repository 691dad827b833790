"""The names that records have: paths of their values, statistics of their tensors. Filters look them up."""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence

import orjson

from collector.records import Json, Record

# Bounds on what hostile records make of them.
_MOST_NAMES, _MOST_SHAPES = 20_000, 10_000

Keys = tuple[str, ...]


class Names:
    """Names as they are met, each told once to the tables `paths` and `statistics`."""

    def __init__(self) -> None:
        # Shapes of records, and keys of tensors' statistics, whose names were met.
        self._shapes: set[tuple[object, ...]] = set()
        self._kinds: set[Keys] = set()
        self._met: set[object] = set()
        self._paths: list[tuple[str]] = []
        self._statistics: list[tuple[str]] = []

    def learn(self, record: Record, objects: int, tensors: Iterable[dict[str, Json]]) -> None:
        """Take the names of a record, and of the statistics of its tensors.

        Args:
            objects: what `objects_in` says of the record.
        """
        if (shape := shape_of(record, objects)) not in self._shapes:
            if len(self._shapes) >= _MOST_SHAPES:
                self._shapes.clear()
            self._shapes.add(shape)
            for path in paths_of(record):
                if self._is_new(path):
                    self._paths.append((orjson.dumps(path).decode(),))
        for measured in tensors:
            # Tensors with the same keys are taken to be of one kind.
            if (kind := tuple(measured)) not in self._kinds:
                if len(self._kinds) >= _MOST_SHAPES:
                    self._kinds.clear()
                self._kinds.add(kind)
                self._statistics += [(name,) for name in _dotted(measured) if self._is_new(name)]

    def _is_new(self, name: Keys | str) -> bool:
        if name in self._met or len(self._met) >= _MOST_NAMES:
            return False
        self._met.add(name)
        return True

    def write(self, connection: sqlite3.Connection) -> None:
        """Tell the tables of what is new since the last time; inside of a transaction."""
        if self._paths:
            paths, self._paths = self._paths, []
            connection.executemany("INSERT OR IGNORE INTO paths (keys) VALUES (?)", paths)
        if self._statistics:
            statistics, self._statistics = self._statistics, []
            connection.executemany("INSERT OR IGNORE INTO statistics (name) VALUES (?)", statistics)


def objects_in(text: bytes, start: int = 0, end: int | None = None) -> int:
    """How many objects stand behind a key in JSON without spaces, but for empty ones."""
    return text.count(b'":{"', start, len(text) if end is None else end)


def shape_of(record: Mapping[str, Json], objects: int) -> tuple[object, ...]:
    """What is the same for records with the same paths.

    Args:
        objects: that stand behind a key in it: where all of them are its own values, nothing has to be looked into.
    """
    shape: list[object] = [*record]
    for key, value in record.items():
        if type(value) is dict and value:
            shape.append(key)
            shape += value
            objects -= 1
    if objects:
        shape += (_inner_shape(value) for value in record.values() if type(value) is dict)
    return tuple(shape)


def _inner_shape(record: Mapping[str, Json]) -> object:
    if dict not in map(type, record.values()):
        return None
    return tuple([(key, tuple(value), _inner_shape(value)) for key, value in record.items() if type(value) is dict])


def paths_of(record: Record, before: Keys = ()) -> Iterator[Keys]:
    """The paths of all values in a record that are no objects."""
    for key, value in record.items():
        path = (*before, key)
        if isinstance(value, dict):
            yield from paths_of(value, path)
        else:
            yield path


def _dotted(value: Mapping[str, Json], prefix: str = "") -> Iterable[str]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _dotted(item, f"{prefix}{key}.")
        else:
            yield prefix + key


class KnownPaths:
    """The table `paths`, as filters look names up in it; read again where it has grown."""

    def __init__(self) -> None:
        self._latest: int | None = None
        self._found: Mapping[str, Sequence[Keys]] = {}

    def read(self, connection: sqlite3.Connection) -> Mapping[str, Sequence[Keys]]:
        """The paths by the text that they make when joined by dots."""
        (latest,) = connection.execute("SELECT max(id) FROM paths").fetchone()
        # Names are only ever added.
        if self._latest is None or self._latest != latest:
            found: dict[str, list[Keys]] = {}
            for (text,) in connection.execute("SELECT keys FROM paths"):
                keys = tuple(orjson.loads(text))
                found.setdefault(".".join(keys), []).append(keys)
            self._latest, self._found = latest, found
        return self._found


__all__ = ["Keys", "KnownPaths", "Names", "objects_in", "paths_of", "shape_of"]
