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
        # Shapes of records and tensors whose names were met.
        self._shapes: set[object] = set()
        self._met: set[object] = set()
        self._paths: list[tuple[str]] = []
        self._statistics: list[tuple[str]] = []

    def learn(self, record: Record, stats: Json) -> None:
        """Take the names of a record (without its statistics) and of its statistics."""
        if (shape := shape_of(record)) not in self._shapes:
            self._remember(shape)
            for path in paths_of(record):
                if self._is_new(path):
                    self._paths.append((orjson.dumps(path).decode(),))
        if isinstance(stats, dict):
            # Tensors with the same keys are taken to be of one kind.
            kinds = {tuple(value): value for value in stats.values() if type(value) is dict}
            for kind in kinds.values():
                if (shape := ("statistics", shape_of(kind))) not in self._shapes:
                    self._remember(shape)
                    self._statistics += [(name,) for name in _dotted(kind) if self._is_new(name)]

    def _remember(self, shape: object) -> None:
        if len(self._shapes) >= _MOST_SHAPES:
            self._shapes.clear()
        self._shapes.add(shape)

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


def shape_of(record: Mapping[str, Json]) -> object:
    """What is the same for records with the same paths."""
    if dict not in map(type, record.values()):
        return tuple(record)
    return (tuple(record), *[(key, shape_of(value)) for key, value in record.items() if type(value) is dict])


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


__all__ = ["Keys", "KnownPaths", "Names", "paths_of", "shape_of"]
