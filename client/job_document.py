"""Jobs of a quantizer as tables, JSON and flat rows."""

from collections.abc import Sequence
from typing import Any

from client.columns import progress_data, progress_text
from client.documents import Column, Facts, Flat, Note, Output, Row, Section, Table
from client.jobs import Job
from client.labels import label
from client.text import as_text, clock, escape, escape_lines
from client.values import COMPLETED

_COLUMNS = ("job", "state", "model", "progress", "queue", "device", "submitted", "error")


def jobs_output(jobs: Sequence[Job], place: str) -> Output:
    """All jobs of the quantizer at `place`."""
    rows = tuple(Row(_cells(job), style="" if job.state == COMPLETED else job.state) for job in jobs)
    columns = tuple(Column(label(name), right=name == "queue") for name in _COLUMNS)
    section: Section = Table(columns, rows) if jobs else Note(f"no jobs at {escape(place)}")
    return Output((section,), [job_data(job) for job in jobs], _flat(jobs))


def job_output(job: Job) -> Output:
    """One job: how to call it, and what became of it."""
    entries = (
        ("job", job.name),
        ("experiment_of_job", job.experiment_id),
        ("state", job.state),
        ("queue", job.queue_position or None),
        ("device", job.device or None),
        ("error", job.error or None),
    )
    facts = Facts(tuple((label(name), as_text(value)) for name, value in entries if value is not None))
    return Output((facts,), job_data(job), _flat((job,)))


def summary_output(job: Job) -> Output:
    """A job that completed: the text that ends a run."""
    summary = escape_lines(job.summary).strip("\n")
    return Output((Note(summary),) if summary else job_output(job).sections, job_data(job), _flat((job,)))


def state_text(job: Job) -> str:
    """Where a job is, in one line."""
    if job.state == "QUEUED":
        return f"{job.state}, {job.queue_position} before it" if job.queue_position else job.state
    return escape(f"{job.state} on {job.device}" if job.device and not job.done else job.state)


def job_data(job: Job) -> dict[str, Any]:
    """One job in JSON."""
    return {
        "name": job.name,
        "experiment_id": job.experiment_id,
        "state": job.state,
        "done": job.done,
        "model": job.spec.get("model"),
        "progress": None if job.progress is None else progress_data(job.progress),
        "queue_position": job.queue_position,
        "device": job.device or None,
        "error": job.error or None,
        "create_time": _time(job.create_time),
        "start_time": _time(job.start_time),
        "end_time": _time(job.end_time),
        "spec": job.spec,
        "results": job.results,
        "summary": job.summary or None,
    }


def _cells(job: Job) -> tuple[str, ...]:
    return (
        escape(job.experiment_id),
        as_text(job.state or None),
        as_text(job.spec.get("model")),
        as_text(None) if job.progress is None or job.done else progress_text(job.progress),
        as_text(job.queue_position or None),
        as_text(job.device or None),
        as_text(_time(job.create_time)),
        as_text(job.error or None),
    )


def _flat(jobs: Sequence[Job]) -> Flat:
    names = ("name", "experiment_id", "state", "model", "progress", "queue_position", "device", "create_time", "error")
    data = [
        {**job_data(job), "progress": None if job.progress is None else progress_text(job.progress)} for job in jobs
    ]
    return Flat(names, [tuple(entry[name] for name in names) for entry in data])


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else clock(seconds)


__all__ = ["job_data", "job_output", "jobs_output", "state_text", "summary_output"]
