"""`quantizer spool flush` says in one sentence what it has done and what others do."""

from pathlib import Path

import grpc
import pytest

from quantizer.errors import DeliveryError
from quantizer.spool_commands import flush_spool
from tests.quantizer.fake_collector import FakeCollector
from tests.quantizer.test_spool import fill, open_spool


def spooled(log_dir: Path, count: int) -> list[str]:
    """The ids of so many experiments that have ended, and whose process has too."""
    spool = open_spool(log_dir / "spool")
    ids = [fill(spool, tensors=1) for _ in range(count)]
    spool.close()
    return ids


@pytest.mark.parametrize(("count", "told"), [(1, "sent 1 experiment"), (2, "sent 2 experiments")])
def test_what_was_sent_is_counted(count: int, told: str, tmp_path: Path) -> None:
    """One is no plural."""
    ids = spooled(tmp_path, count)
    with FakeCollector() as collector:
        assert flush_spool(tmp_path, collector.address) == told
        assert set(collector.store) == set(ids)


@pytest.mark.parametrize(
    ("ended", "runs", "told"),
    [
        (0, 1, "1 experiment still runs and is sent by its own process"),
        (1, 2, "sent 1 experiment; 2 experiments still run and are sent by their own processes"),
    ],
)
def test_what_still_runs_is_left_to_its_process(ended: int, runs: int, told: str, tmp_path: Path) -> None:
    """Nothing is said to be sent where nothing is."""
    spooled(tmp_path, ended)
    living = open_spool(tmp_path / "spool")
    for _ in range(runs):
        fill(living, tensors=1, ended=False)
    with FakeCollector() as collector:
        assert flush_spool(tmp_path, collector.address) == told
    living.close()


@pytest.mark.parametrize(("count", "others"), [(1, ": "), (2, r" \(and 1 experiment more\): ")])
def test_a_refusal_names_an_experiment(count: int, others: str, tmp_path: Path) -> None:
    """With the collector's reason, and how many more there are."""
    ids = spooled(tmp_path, count)
    with FakeCollector() as collector:
        collector.refuse = grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(DeliveryError, match=rf"refuses experiment ({'|'.join(ids)}){others}refused on request"):
            flush_spool(tmp_path, collector.address)
