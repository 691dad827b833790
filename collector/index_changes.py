"""What is said of lines of the index after they were added: annotations and amendments."""

import sqlite3

import orjson

from collector.annotations import Annotation
from collector.index_lookups import Lookups
from collector.index_names import objects_in
from collector.index_records import count_of, events_of, id_of, split
from collector.index_values import FALSE, HOT, TRUE, Value, encode, hot_values, instant, words_of
from collector.records import Record


class Changes(Lookups):
    """The changes of an open index."""

    def annotate(self, number: int, annotation: Annotation) -> None:
        """Say of a line what was said of it; replaces what was said before."""
        entry = self.by_number(number)
        if entry is None or entry.annotation == annotation:
            return
        values: dict[str, Value] = {
            "tags": orjson.dumps(annotation.tags) if annotation.tags else None,
            "note": annotation.note or None,
            "archived": TRUE if annotation.archived else FALSE,
        }
        record = orjson.loads(entry.summary) if entry.summary else {}
        with self.writing() as connection:
            _update(connection, number, values)
            _rewrite_text(connection, number, words_of(record, annotation.tags, annotation.note))

    def amend(self, number: int, record: Record) -> None:
        """Replace what is known of a line's content; its place in the file stays."""
        rest, stats = split(record)
        summary = orjson.dumps(rest)
        entry = self.by_number(number)
        if entry is None or entry.summary == summary:
            return
        values: dict[str, Value] = {
            **dict(zip(HOT.values(), hot_values(record), strict=True)),
            "experiment_id": id_of(record) or None,
            "events": events_of(record),
            "stats_count": count_of(stats),
            "instant": instant(record),
            "amended": 1,
            "corrupt": 0,
            "head": None,
            "tail": None,
            "error": encode(record.get("error")),
        }
        said = entry.annotation
        with self.writing() as connection:
            _update(connection, number, values)
            connection.execute("INSERT OR REPLACE INTO summaries VALUES (?, ?)", (number, summary))
            connection.execute("UPDATE state SET corrupt = corrupt - ?", (int(entry.corrupt),))
            tensors = [value for value in stats.values() if isinstance(value, dict)]
            self.names.learn(rest, objects_in(summary), tensors)
            self.names.write(connection)
            self._tracked.amend(connection, number, record)
            _rewrite_text(connection, number, words_of(record, said.tags, said.note))

    def spoil(self) -> None:
        """Have it made anew: by this process now, by others when they look at the file next."""
        with self.writing() as connection:
            connection.execute("UPDATE state SET log = '', indexed = -1")
        self.damaged = True

    def set_mark(self, name: str, text: str) -> None:
        """Remember how far a file other than the log was taken in. An index that is made anew has no marks."""
        with self.writing() as connection:
            connection.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (name, text))


def _update(connection: sqlite3.Connection, number: int, values: dict[str, Value]) -> None:
    assigned = ", ".join(f"{column} = ?" for column in values)
    connection.execute(f"UPDATE lines SET {assigned} WHERE number = ?", (*values.values(), number))  # noqa: S608 - ours


def _rewrite_text(connection: sqlite3.Connection, number: int, text: str) -> None:
    (old,) = connection.execute("SELECT text FROM texts WHERE number = ?", (number,)).fetchone()
    connection.execute("INSERT INTO words (words, rowid, text) VALUES ('delete', ?, ?)", (number, old))
    connection.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (number, text))
    connection.execute("UPDATE texts SET text = ? WHERE number = ?", (text, number))
    connection.execute("UPDATE state SET generation = generation + 1")


__all__ = ["Changes"]
