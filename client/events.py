"""What happens in experiments, as frozen values."""

from dataclasses import dataclass

from client.values import Experiment, Record


@dataclass(frozen=True, slots=True)
class ExperimentEvent:
    """What happened in an experiment: begin, layer_stats, progress, facts, evaluation_result, reorder_summary, finish.

    `data` is spelt as the record spells it. `offset` is the event's position; None where the stream tells none.
    """

    experiment_id: str
    offset: int | None
    kind: str
    data: Record


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """Events of one experiment as they arrived together; `ended` holds the experiment once it has ended."""

    experiment_id: str
    events: tuple[ExperimentEvent, ...]
    resume_token: str
    ended: Experiment | None = None


__all__ = ["ExperimentEvent", "WatchBatch"]
