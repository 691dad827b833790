"""Computations handed from one thread to another.

torch splits an operation over a team of threads that belongs to the calling thread. Where two threads of a process have
such teams, the OpenMP runtime counts more threads than processors and puts each to sleep between operations: many small
operations take twice as long. So lm-eval, which has to be called in a thread of its own, hands what is to be computed
back to the thread that loaded the model.
"""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Compute(Protocol):
    """Runs a function, here or elsewhere, and gives its result."""

    def __call__(self, function: Callable[[], T], /) -> T:
        """The function's result; what it raises is raised."""
        ...


def here(function: Callable[[], T], /) -> T:
    """Run it in the calling thread."""
    return function()


@dataclass(frozen=True, slots=True)
class Call:
    """Something to compute, and where its result goes."""

    function: Callable[[], Any]
    result: "Future[Any]" = field(default_factory=Future)

    def run(self) -> None:
        """Compute it here; an error is raised where the result is awaited."""
        try:
            self.result.set_result(self.function())
        except BaseException as error:  # noqa: BLE001  # raised again by whoever awaits the result
            self.result.set_exception(error)


class Relay:
    """Has functions run by whoever takes their calls.

    Args:
        hand_over: takes a call to them.
    """

    def __init__(self, hand_over: Callable[[Call], None]) -> None:
        self._hand_over = hand_over

    def __call__(self, function: Callable[[], T], /) -> T:
        """Hand the function over and wait for its result."""
        call = Call(function)
        self._hand_over(call)
        result: T = call.result.result()
        return result


__all__ = ["Call", "Compute", "Relay", "here"]
