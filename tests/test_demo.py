"""However `make demo` ends, nothing that it started goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.documents import ROOT

LISTENS = 'echo "listening on 127.0.0.1:1"; exec sleep 600'
SILENT = "exec sleep 600"
DEAF = "trap '' TERM INT; " + 'echo "listening on 127.0.0.1:1"; while :; do sleep 0.1; done'
CODE = """
import sys
from pathlib import Path
from tests import demo

demo.PROGRAMS, demo.STOP_SECONDS = Path(sys.argv[1]), 0.5
demo.main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize(
    ("collector", "quantizer", "last"),
    [(LISTENS, LISTENS, "qlog"), (LISTENS, SILENT, "quantizer"), (DEAF, LISTENS, "qlog")],
    ids=["an experiment runs", "a server starts", "a server does not listen"],
)
def test_a_signal_stops_all_that_was_started(
    number: int, code: int, collector: str, quantizer: str, last: str, tmp_path: Path
) -> None:
    """Servers and clients are gone when the demo is, whatever it was at; its exit code names the signal."""
    for name, script in (("collector", collector), ("quantizer", quantizer), ("qlog", SILENT)):
        program = tmp_path / name
        program.write_text(
            f"#!/bin/sh\necho $$ > {tmp_path}/{name}.new\nmv {tmp_path}/{name}.new {program}.pid\n{script}\n"
        )
        program.chmod(0o755)
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    demo = subprocess.Popen(
        [sys.executable, "-c", CODE, str(tmp_path)], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    )
    while not (tmp_path / f"{last}.pid").exists():
        assert demo.poll() is None
        time.sleep(0.01)
    demo.send_signal(number)
    assert demo.wait(30) == code
    started = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
    assert len(started) >= 2
    for process in started:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
