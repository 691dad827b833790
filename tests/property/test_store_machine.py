"""A store against a plain model of it, under everything that senders, crashes and damage do to its end."""

import json
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from collector.errors import EndedError, OffsetGapError
from collector.fold import CODEC
from collector.ledger import Receipt
from collector.store import LOG_NAME, open_store
from tests.collector.builders import batch, begin, finish, new_id, stats, submit

_EXPERIMENTS = 3


class StoreMachine(RuleBasedStateMachine):
    """The model: for each experiment how many events are on disk, and its number once it has one."""

    @initialize()
    def open(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="store-machine-"))
        self.log_dir = self.root / "logs"
        self.store = open_store(self.log_dir, CODEC)
        self.ids = [new_id() for _ in range(_EXPERIMENTS)]
        self.committed = dict.fromkeys(self.ids, 0)
        self.numbers: dict[str, int] = {}
        self.opened = 0

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.root)

    @rule(which=st.integers(0, _EXPERIMENTS - 1), offset=st.integers(-3, 2), count=st.integers(0, 4), end=st.booleans())
    def append(self, which: int, offset: int, count: int, end: bool) -> None:
        """Send events from a place around the committed offset: repeats, overlaps, gaps, new ones, a finish."""
        experiment_id = self.ids[which]
        committed = self.committed[experiment_id]
        start = max(committed + offset, 0)
        events = [begin() if place == 0 else stats(f"t{place}") for place in range(start, start + count)]
        if end and start + count > 0:
            events.append(finish())
        stop = start + len(events)
        (answer,) = submit(self.store, batch(experiment_id, events, start))
        if not events or stop <= committed:
            assert answer == self._receipt(experiment_id)
        elif experiment_id in self.numbers:
            assert isinstance(answer, EndedError)
        elif start > committed:
            assert isinstance(answer, OffsetGapError)
            assert answer.wanted_offset == committed
        else:
            self.committed[experiment_id] = stop
            if end:
                self.numbers[experiment_id] = len(self.numbers)
            assert answer == self._receipt(experiment_id)

    @rule(tail=st.sampled_from([b"", b'{"half', b"\0" * 700]))
    def restart(self, tail: bytes) -> None:
        """Close and open, with what an interrupted append leaves behind."""
        self.store.close()
        with (self.log_dir / LOG_NAME).open("ab") as file:
            file.write(tail)
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

    @precondition(lambda self: len(self.numbers) == _EXPERIMENTS)
    @rule()
    def begin_anew(self) -> None:
        """More experiments, once all have ended."""
        self.ids = [new_id() for _ in range(_EXPERIMENTS)]
        self.committed |= dict.fromkeys(self.ids, 0)

    @invariant()
    def what_the_store_says_is_what_the_model_says(self) -> None:
        """Offsets, numbers, lines."""
        for experiment_id in self.committed:
            assert self.store.status(experiment_id) == self._receipt(experiment_id)
        lines = [json.loads(line) for line in (self.log_dir / LOG_NAME).read_bytes().splitlines()]
        assert [line["experiment_id"] for line in lines] == sorted(self.numbers, key=self.numbers.__getitem__)
        for line in lines:
            places = range(1, self.committed[line["experiment_id"]] - 1)
            assert list(line["activation_stats"]) == [f"t{place}" for place in places]

    def _receipt(self, experiment_id: str) -> Receipt:
        number = self.numbers.get(experiment_id)
        return Receipt(self.committed[experiment_id], number, finished=number is not None)


StoreMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestStore = StoreMachine.TestCase
TestStore.__doc__ = "Whatever happens in whatever order, the store is the model."
