"""What happens to the quantizer itself: its disk is full, it is stopped, it is killed, it is not alone."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Case
from tests.integration.moments import collector, free_port
from tests.processes import running
from tests.quantizer.runs import numbers, records

# A run whose files cannot grow beyond so many bytes, as if the disk were full. Torch first: it writes where it likes.
# Where it forks it ends at once: gRPC does not survive in the child.
CRAMPED = """
import os, resource, sys
from quantizer.surroundings import examine
from quantizer.entry import main
os.register_at_fork(before=lambda: os._exit(99))
resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))
main(sys.argv[1:])
"""


def test_a_full_disk(case: Case) -> None:
    """With a spool that cannot grow, the events go to the collector from memory: same numbers, a whole record."""
    with collector(case.there) as (_, address):
        options = ["--log_dir", str(case.here), "--collector", address]
        with running("-c", CRAMPED, *case.words, *options) as process:
            out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert err.count("warning") == 1, err
        assert "in memory" in err
        assert "number 0" in out
    case.check()


@contextmanager
def calibrating(words: list[str], *more: str) -> Iterator["subprocess.Popen[str]"]:
    """A run in a process of its own that is in the middle of its calibration, and would be for long."""
    with running("quantizer.entry", *words, "--calib_data_num", "512", *more) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("calibrate"):
                break
        yield process


def test_a_quantizer_killed_in_the_middle_is_told_as_failed(case: Case) -> None:
    """kill -9 of the quantizer leaves a spool; a flush ends its record, with what was measured until then."""
    with calibrating(case.words, "--log_dir", str(case.here), "--collector", f"127.0.0.1:{free_port()}"):
        pass  # It is killed here.
    with collector(case.there) as (_, address):
        assert case.flush(address)[0] == 0
    (record,) = records(case.there)
    assert record["status"] == "FAILED"
    assert record["error"] == "the process ended without finishing"
    assert record["model"]["family"] == "mamba1"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_is_recorded_as_cancelled(
    number: signal.Signals, code: int, words: list[str], tmp_path: Path
) -> None:
    """Ctrl-C and SIGTERM end the experiment, its record says so, and no traceback is shown."""
    with calibrating(words, "--log_dir", str(tmp_path)) as process:
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    (record,) = records(tmp_path)
    assert record["status"] == "CANCELLED"


def test_two_runs_share_a_local_store_though_the_first_serves_it(
    words: list[str], undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """Whoever holds the store serves it; when it ends, another takes over. Both records are whole."""
    command = ["quantizer.entry", *words, "--log_dir", str(tmp_path)]
    with running(*command) as first, running(*command) as second:
        processes = first, second
        said = [process.communicate(timeout=120) for process in processes]
    for process, (out, err) in zip(processes, said, strict=True):
        assert process.returncode == 0, err
        assert "warning" not in err, err
        assert "Recorded         number" in out
    found = records(tmp_path)
    assert len(found) == 2
    for record in found:
        assert numbers(record) == numbers(undisturbed)
