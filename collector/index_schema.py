"""The tables of the index. A change of them, or of what stands in them, is a new VERSION: others are made anew."""

import re
from collections.abc import Iterator

from collector.index_values import HOT

VERSION = 2

_HOT = ",\n    ".join(f"{column} COLLATE NOCASE" for column in HOT.values())

TABLES = f"""
-- One row: how far the log was taken in, and the mark (JSON) by which it is recognized.
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    count INTEGER NOT NULL,
    corrupt INTEGER NOT NULL,
    indexed INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    log TEXT NOT NULL
);
INSERT INTO state VALUES (0, 0, 0, 0, 0, '');
CREATE TABLE marks (name TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;

-- What most filters and orders ask for, narrow so that a pass over it is short.
CREATE TABLE lines (
    number INTEGER PRIMARY KEY,
    place INTEGER NOT NULL,
    length INTEGER NOT NULL,
    stats_count INTEGER NOT NULL,
    events INTEGER,
    verified INTEGER NOT NULL,
    corrupt INTEGER NOT NULL,
    head INTEGER,
    tail INTEGER,
    instant REAL,
    archived NOT NULL,
    amended INTEGER NOT NULL DEFAULT 0,
    experiment_id COLLATE NOCASE,
    {_HOT},
    tags,
    note COLLATE NOCASE,
    error COLLATE NOCASE
);

-- Records without their statistics, as JSON, where they cannot be cut out of the log (`head` is NULL).
CREATE TABLE summaries (number INTEGER PRIMARY KEY, summary BLOB NOT NULL);
-- What a bare word is looked for in, and an index of it.
CREATE TABLE texts (number INTEGER PRIMARY KEY, text TEXT NOT NULL);
CREATE VIRTUAL TABLE words USING fts5(text, content='', tokenize='trigram', detail='none', columnsize=0);

-- The names that there are: paths of records as JSON lists, statistics of tensors as dotted paths.
CREATE TABLE paths (id INTEGER PRIMARY KEY, keys TEXT NOT NULL UNIQUE, upto INTEGER);
CREATE TABLE statistics (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, upto INTEGER);

-- Values of paths and statistics that were asked for once, of the lines before `upto`.
CREATE TABLE extra (
    path INTEGER NOT NULL, number INTEGER NOT NULL, value COLLATE NOCASE, PRIMARY KEY (path, number)
) WITHOUT ROWID;
CREATE TABLE layouts (id INTEGER PRIMARY KEY, names TEXT NOT NULL UNIQUE);
CREATE TABLE layer_values (
    statistic INTEGER NOT NULL, number INTEGER NOT NULL, layout INTEGER NOT NULL, data NOT NULL,
    PRIMARY KEY (statistic, number)
) WITHOUT ROWID;
"""  # noqa: S608 - names of our own

# Made last: a table is filled faster without them.
INDEXES = f"""
CREATE INDEX ids ON lines (experiment_id, number) WHERE experiment_id IS NOT NULL;
CREATE INDEX archived_lines ON lines (number) WHERE archived = x'74';
CREATE INDEX annotated_lines ON lines (number) WHERE tags IS NOT NULL OR note IS NOT NULL OR archived = x'74';
CREATE INDEX amended_lines ON lines (number) WHERE amended = 1;
CREATE INDEX corrupt_lines ON lines (number) WHERE corrupt = 1;
PRAGMA user_version = {VERSION};
"""

COLUMNS = (
    *("number", "place", "length", "stats_count", "events", "verified", "corrupt", "head", "tail"),
    *("instant", "archived", "experiment_id"),
    *HOT.values(),
    "error",
)


def statements(script: str) -> Iterator[str]:
    """The statements of a script of this module, one by one: `executescript` would end a transaction."""
    for statement in re.sub(r"--.*", "", script).split(";"):
        if statement.strip():
            yield statement


__all__ = ["COLUMNS", "INDEXES", "TABLES", "VERSION", "statements"]
