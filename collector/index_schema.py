"""The tables of the index. A change of them, or of what stands in them, is a new VERSION: others are made anew."""

from collector.index_values import HOT

VERSION = 1

_HOT = ",\n    ".join(f"{column} COLLATE NOCASE" for column in HOT.values())

SCHEMA = f"""
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
    instant REAL,
    archived NOT NULL,
    amended INTEGER NOT NULL DEFAULT 0,
    experiment_id COLLATE NOCASE,
    {_HOT},
    tags,
    note COLLATE NOCASE,
    error COLLATE NOCASE
);
CREATE INDEX ids ON lines (experiment_id, number) WHERE experiment_id IS NOT NULL;
CREATE INDEX archived_lines ON lines (number) WHERE archived = x'74';
CREATE INDEX annotated_lines ON lines (number) WHERE tags IS NOT NULL OR note IS NOT NULL OR archived = x'74';
CREATE INDEX amended_lines ON lines (number) WHERE amended = 1;
CREATE INDEX corrupt_lines ON lines (number) WHERE status = 'CORRUPT';

-- `words`: what a bare word is looked for in. `summary`: the record without its statistics.
CREATE TABLE details (number INTEGER PRIMARY KEY, words TEXT NOT NULL, summary BLOB NOT NULL, corrupt TEXT NOT NULL);
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
PRAGMA user_version = {VERSION};
"""  # noqa: S608 - names of our own

COLUMNS = (
    *("number", "place", "length", "stats_count", "events", "verified", "instant", "archived", "experiment_id"),
    *HOT.values(),
    *("tags", "note", "error"),
)
INSERT_LINE = f"INSERT INTO lines ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608
INSERT_DETAILS = "INSERT INTO details VALUES (?, ?, ?, ?)"
INSERT_WORDS = "INSERT INTO words (rowid, text) VALUES (?, ?)"
DELETE_WORDS = "INSERT INTO words (words, rowid, text) VALUES ('delete', ?, ?)"

__all__ = ["COLUMNS", "DELETE_WORDS", "INSERT_DETAILS", "INSERT_LINE", "INSERT_WORDS", "SCHEMA", "VERSION"]
