"""Of two ways of launching a step the better one: the same, and faster."""

import pytest
import torch
from torch import Tensor

from quamba.decoding.trial import Replay, faster


def plain() -> None:
    raise AssertionError("replays are asked for, not made")


def other() -> None:
    raise AssertionError("replays are asked for, not made")


@pytest.mark.parametrize(
    ("differs", "taken", "chosen"),
    [(False, 0.9, other), (False, 1.0, plain), (False, 1.1, plain), (True, 0.1, plain)],
)
def test_the_same_in_less_time(differs: bool, taken: float, chosen: Replay) -> None:
    """What gives something else is not taken, however fast it is; nor what gains nothing."""

    def outcome(replay: Replay) -> Tensor:
        return torch.tensor([1.0, float(differs and replay is other)])

    assert faster(plain, other, outcome, lambda replay: taken if replay is other else 1.0) is chosen


def test_the_best_of_several_turns() -> None:
    """A turn in which something else held the device up decides nothing."""
    times = {plain: iter([1.0, 1.0, 1.0]), other: iter([7.0, 0.9, 7.0])}
    assert faster(plain, other, lambda _: torch.zeros(1), lambda replay: next(times[replay])) is other
