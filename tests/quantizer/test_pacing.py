"""When the sender sends: gathered, urgent, after failures."""

from quantizer.pacing import BACKOFF_MOST_S, GATHER_EVENTS, GATHER_S, Pacing

FAR = 1e9


def idle() -> Pacing:
    pacing = Pacing()
    pacing.begin()
    return pacing


def test_the_first_look_is_at_once_and_then_nothing_is_done_for_nothing() -> None:
    """What earlier processes left is looked for at the start; without news only heartbeats wake."""
    assert Pacing().wait_s(100.0, FAR) == 0.0
    assert idle().wait_s(100.0, 107.0) == 7.0


def test_a_few_events_gather_for_a_moment() -> None:
    """The wait counts from the first of them."""
    pacing = idle()
    pacing.add(1, 100.0, urgent=False)
    pacing.add(1, 100.1, urgent=False)
    assert abs(pacing.wait_s(100.1, FAR) - (GATHER_S - 0.1)) < 1e-9
    assert pacing.wait_s(100.0 + GATHER_S, FAR) == 0.0


def test_many_events_and_urgent_ones_go_at_once() -> None:
    """A full batch waits for nothing, nor does a begin or a finish."""
    full, urgent = idle(), idle()
    full.add(GATHER_EVENTS, 100.0, urgent=False)
    urgent.add(1, 100.0, urgent=True)
    assert full.wait_s(100.0, FAR) == urgent.wait_s(100.0, FAR) == 0.0


def test_failures_wait_longer_and_longer_up_to_a_bound() -> None:
    """Twice as long each time, between half and all of it, never more than the most; news does not shorten it."""
    pacing = idle()
    for count in range(20):
        pacing.fail(100.0, at_once=False)
        pacing.add(1000, 100.0, urgent=True)
        longest = min(BACKOFF_MOST_S, GATHER_S * 2**count)
        assert longest / 2 <= pacing.wait_s(100.0, FAR) <= longest
        pacing.begin()


def test_where_another_may_have_taken_over_the_first_retry_is_at_once() -> None:
    """Only the first."""
    pacing = idle()
    pacing.fail(100.0, at_once=True)
    assert pacing.wait_s(100.0, FAR) == 0.0
    pacing.fail(100.0, at_once=True)
    assert pacing.wait_s(100.0, FAR) > 0.0


def test_success_and_hurry_forget_failures() -> None:
    """At the end of a run there is one more attempt now."""
    pacing = idle()
    for _ in range(10):
        pacing.fail(100.0, at_once=False)
    pacing.hurry()
    assert pacing.wait_s(100.0, FAR) == 0.0
    assert pacing.failures == 0
    pacing.fail(100.0, at_once=False)
    pacing.succeed()
    assert pacing.failures == 0
