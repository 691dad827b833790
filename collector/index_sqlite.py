"""The index in SQLite: in a file beside the log, or private where nothing may be written.

`lines` has what most lists need, `words` finds text; what is shown of a line is cut out of the log; what else filters
ask for is collected when it is first asked for (`collector.index_tracked`). Several processes may use one file: each
change is a transaction that first looks where the index stands.
"""

from collections.abc import Sequence

from collector.index import Entry, LogMark
from collector.index_changes import Changes
from collector.index_mark import mark_text
from collector.index_questions import Found, Questions
from collector.index_rows import Rows


class SqliteIndex(Changes, Questions):
    """See `collector.index.Index`, and `collector.index_base.IndexBase` for what it is made from."""

    def extend(self, start: int, end: int, rows: Rows, log: LogMark) -> bool:
        """Add the lines between two places of the log; their numbers go on from the count so far.

        Returns:
            False, with nothing done, where the index does not end at `start` any more: another process went on with it.
        """
        with self.writing() as connection:
            indexed, count = connection.execute("SELECT indexed, count FROM state").fetchone()
            if indexed != start or (rows.count and rows.first != count):
                return False
            rows.write(connection)
            rows.index_texts(connection)
            connection.execute(
                "UPDATE state SET count = count + ?, corrupt = corrupt + ?, indexed = ?, log = ?",
                (rows.count, rows.corrupt, end, mark_text(log)),
            )
        return True

    def append(self, entries: Sequence[Entry], end: int, log: LogMark) -> bool:
        """Add the lines, one or more, between the first entry's place and `end`: see `extend`."""
        rows = Rows(entries[0].number, self.names)
        for entry in entries:
            rows.add_entry(entry)
        return self.extend(entries[0].offset, end, rows, log)

    def put(self, entries: Sequence[Entry]) -> None:
        """Add what is in no log: entries with any numbers, each of which is new."""
        rows = Rows(0, self.names)
        for entry in entries:
            rows.add_entry(entry)
        with self.writing() as connection:
            rows.write(connection)
            rows.index_texts(connection)
            connection.execute("UPDATE state SET count = ?", (1 + max(entry.number for entry in entries),))


__all__ = ["Found", "SqliteIndex"]
