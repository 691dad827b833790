"""A store against a plain model of it, under everything that senders, people, silence, crashes and damage do."""

import json
import shutil
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from collector.annotations import Annotation
from collector.errors import EndedError, OffsetGapError
from collector.fold import CODEC, fold_record, payload_from_events
from collector.importing import Tally, candidates
from collector.ledger import Receipt
from collector.lines import encode_line
from collector.names import LOG_NAME, META_NAME
from collector.store import open_store
from tests.collector.builders import LEGACY_LINE, batch, begin, finish, new_id, stats, submit

_EXPERIMENTS = 3


@dataclass
class Known:
    """What the model knows of one experiment.

    Attributes:
        committed: events on disk.
        number: of its line, once it has one.
        over: it takes no more events.
        in_line: events in its line: fewer than `committed` where it was LOST and came back.
        said: its annotation.
    """

    committed: int = 0
    number: int | None = None
    over: bool = False
    in_line: int = 0
    said: Annotation = field(default_factory=Annotation)

    @property
    def receipt(self) -> Receipt:
        """What the store answers."""
        return Receipt(self.committed, self.number, finished=True) if self.over else Receipt(self.committed)


class StoreMachine(RuleBasedStateMachine):
    """The model: what is known of each experiment, and the line of each number."""

    @initialize()
    def open(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="store-machine-"))
        self.log_dir = self.root / "logs"
        self.store = open_store(self.log_dir, CODEC)
        self.ids = [new_id() for _ in range(_EXPERIMENTS)]
        self.known = {name: Known() for name in self.ids}
        # By number: an id, or the text of a line without one.
        self.lines: list[str | bytes] = []
        self.opened = 0

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.root)

    @rule(which=st.integers(0, _EXPERIMENTS - 1), offset=st.integers(-3, 2), count=st.integers(0, 4), end=st.booleans())
    def append(self, which: int, offset: int, count: int, end: bool) -> None:
        """Send events from a place around the committed offset: repeats, overlaps, gaps, new ones, a finish."""
        name = self.ids[which]
        known = self.known[name]
        start = max(known.committed + offset, 0)
        events = [begin() if place == 0 else stats(f"t{place}") for place in range(start, start + count)]
        if end and start + count > 0:
            events.append(finish())
        stop = start + len(events)
        (answer,) = submit(self.store, batch(name, events, start))
        if not events or stop <= known.committed:
            assert answer == known.receipt
        elif known.over:
            assert isinstance(answer, EndedError)
        elif start > known.committed:
            assert isinstance(answer, OffsetGapError)
            assert answer.wanted_offset == known.committed
        else:
            known.committed = stop
            if end:
                self._ends(name)
            assert answer == known.receipt

    def _ends(self, name: str) -> None:
        known = self.known[name]
        known.over = True
        if known.number is None:
            self._gets_line(name)

    def _gets_line(self, name: str) -> None:
        known = self.known[name]
        known.number, known.in_line = len(self.lines), known.committed
        self.lines.append(name)

    def _running(self) -> list[str]:
        return [name for name, known in self.known.items() if known.committed and known.number is None]

    @precondition(lambda self: self._running())
    @rule()
    def silence(self) -> None:
        """Nobody is heard of for a whole lease: all that run get their lines, as LOST; what they sent is kept."""
        running = self._running()
        self.store.close()
        self.store = open_store(self.log_dir, CODEC, lease_s=0.01)
        deadline = time.monotonic() + 20
        while self.store.running():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        self._reopen()
        for name in sorted(running, key=lambda name: self.store.index().by_id(name).number):
            self._gets_line(name)

    @rule(
        which=st.integers(0, _EXPERIMENTS - 1),
        tag=st.sampled_from(["a", "b", ""]),
        note=st.sampled_from(["", "why", None]),
        archived=st.sampled_from([True, False, None]),
    )
    def annotate(self, which: int, tag: str, note: str | None, archived: bool | None) -> None:
        """Say something of one that runs, was lost, or is over."""
        name = self.ids[which]
        known = self.known[name]
        if not known.committed:
            return

        def change(before: Annotation) -> Annotation:
            assert before == known.said
            tags = tuple(dict.fromkeys((*before.tags, tag))) if tag else ()
            after = before if note is None else replace(before, note=note)
            return replace(after, tags=tags, archived=before.archived if archived is None else archived)

        known.said = change(known.said)
        before, known.said = known.said, self.store.annotation(self.store.index().by_id(name) or name)
        self.store.annotate(self.store.index().by_id(name) or name, change)
        known.said = before

    @rule(fresh=st.integers(0, 2), also=st.booleans(), legacy=st.integers(0, 3), noted=st.booleans())
    def bring(self, fresh: int, also: bool, legacy: int, noted: bool) -> None:
        """Import: new lines, those of experiments that are here, lines without ids; twice the same changes nothing."""
        names = [new_id() for _ in range(fresh)] + (list(self.ids) if also else [])
        texts: list[bytes] = []
        for name in names:
            record = fold_record(name, [(payload_from_events([begin(), stats("t1"), finish()]), 3)])
            if noted:
                record |= {"number": 7, "tags": ["x"], "note": "n", "archived": True}
                texts.append(json.dumps(record).encode() + b"\n")
            else:
                texts.append(encode_line(record))
        old = LEGACY_LINE.replace(b"15:30:00", b"15:30:%02d" % legacy) if legacy else b""
        running = set(self._running())
        here = {name for name in names if name in self.known and self.known[name].number is not None}
        new = [name for name in names if name not in running and name not in here]
        for attempt in range(2):
            tally = Tally()
            for group in candidates(iter([b"".join(texts) + old]), tally):
                self.store.take_in(group, tally)
            first = attempt == 0
            new_old = bool(old) and first and old not in self.lines
            assert tally.imported == (len(new) if first else 0) + new_old
            assert tally.rejected == len(running & set(names))
            if first:
                for name in new:
                    said = Annotation(("x",), "n", True) if noted else self.known.get(name, Known()).said
                    self.known[name] = Known(3, len(self.lines), over=True, in_line=3, said=said)
                    self.lines.append(name)
                if new_old:
                    self.lines.append(old)

    @rule(tail=st.sampled_from([b"", b'{"half', b"\0" * 700]), meta=st.sampled_from([b"", b'{"kind":"ann', b"\0" * 90]))
    def restart(self, tail: bytes, meta: bytes) -> None:
        """Close and open, with what interrupted appends leave behind."""
        self.store.close()
        with (self.log_dir / LOG_NAME).open("ab") as file:
            file.write(tail)
        if (self.log_dir / META_NAME).exists():
            with (self.log_dir / META_NAME).open("ab") as file:
                file.write(meta)
        self.store = open_store(self.log_dir, CODEC)

    @rule()
    def lose_the_index(self) -> None:
        """It is made anew, and says the same."""
        self.store.close()
        for file in self.log_dir.glob("*.index.sqlite*"):
            file.unlink()
        self.store = open_store(self.log_dir, CODEC)

    @rule()
    def lose_power(self) -> None:
        """Go on from a copy of what was on disk, while the store was open."""
        self.opened += 1
        copy = self.root / f"copy{self.opened}"
        shutil.copytree(self.log_dir, copy)
        self.store.close()
        self.log_dir = copy
        self.store = open_store(self.log_dir, CODEC)

    def _reopen(self) -> None:
        self.store.close()
        self.store = open_store(self.log_dir, CODEC)

    @precondition(lambda self: all(self.known[name].over for name in self.ids))
    @rule()
    def begin_anew(self) -> None:
        """More experiments, once all have ended."""
        self.ids = [new_id() for _ in range(_EXPERIMENTS)]
        self.known |= {name: Known() for name in self.ids}

    @invariant()
    def what_the_store_says_is_what_the_model_says(self) -> None:
        """Offsets, numbers, lines as they stand and as they are shown, annotations."""
        index = self.store.index()
        assert index.count() == len(self.lines)
        stored = (self.log_dir / LOG_NAME).read_bytes().splitlines(keepends=True)
        assert len(stored) == len(self.lines)
        for text, line in zip(stored, self.lines, strict=True):
            if isinstance(line, bytes):
                assert text == line
                continue
            record, known = json.loads(text), self.known[line]
            lost = known.in_line < known.committed or not known.over
            assert (record["experiment_id"], record["status"]) == (line, "LOST" if lost else "COMPLETED")
            assert list(record["activation_stats"]) == [f"t{i}" for i in range(1, known.in_line - (not lost))]
        for name, known in self.known.items():
            assert self.store.status(name) == known.receipt
            assert (name in self.store.running()) == (known.committed > 0 and known.number is None)
            entry = index.by_id(name)
            assert (entry and entry.number) == known.number
            if known.committed:
                assert self.store.annotation(entry or name) == known.said
            if entry is not None:
                assert entry.annotation == known.said
                shown = self.store.record(entry)
                assert shown["status"] == entry.basic_record()["status"] == ("COMPLETED" if known.over else "LOST")
                last = known.committed - 1 if known.over else known.in_line
                assert list(shown["activation_stats"]) == [f"t{i}" for i in range(1, last)]


_SETTINGS = settings(
    max_examples=8, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
StoreMachine.TestCase.settings = _SETTINGS
TestStore = StoreMachine.TestCase
TestStore.__doc__ = "Whatever happens in whatever order, the store is the model."


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_store_is_the_model_for_long():
    """The same, in many more and longer histories."""
    run_state_machine_as_test(StoreMachine, settings=settings(_SETTINGS, max_examples=60, stateful_step_count=50))
