"""MLflow's tracking server in an environment of its own: made once from pinned requirements, kept in a cache."""

import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "mlflow_requirements.txt"
_INSTALL_S, _START_S, _LIFE_S = 900, 90, 420


class NotInstallableError(Exception):
    """MLflow cannot be installed here; one line."""


def bare_environment() -> dict[str, str]:
    """The environment without this project's packages, and without MLflow's reports to its makers."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MLFLOW", "QLOG"))}
    return {**kept, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


def installed() -> Path:
    """The `bin` directory of the environment; `QLOG_BENCH_CACHE` says where environments are kept.

    Raises:
        NotInstallableError: pip could not.
    """
    cache = Path(os.environ.get("QLOG_BENCH_CACHE") or Path.home() / ".cache" / "qlog-bench")
    digest = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    home = cache / f"mlflow-{digest}"
    complete = home / ".complete"
    if complete.exists():
        return home / "bin"
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True, capture_output=True)
        environment = bare_environment()
        subprocess.run(
            [*pip, "--requirement", str(REQUIREMENTS)],
            check=True,
            capture_output=True,
            text=True,
            timeout=_INSTALL_S,
            env=environment,
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise NotInstallableError(f"MLflow cannot be installed: {said[-1] if said else error}") from error
    complete.touch()
    return home / "bin"


@contextlib.contextmanager
def tracking_server(binaries: Path, directory: Path) -> Iterator[str]:
    """A tracking server with a SQLite store, as `mlflow server` starts it; its URI. Ends after minutes by itself."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        *("timeout", "--kill-after", "5", str(_LIFE_S), str(binaries / "mlflow"), "server"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{directory / 'mlflow.db'}"),
        *("--default-artifact-root", str(directory / "artifacts")),
    ]
    log = directory / "server.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, stdout=said, stderr=said, env=bare_environment(), cwd=directory, start_new_session=True
        )
    try:
        uri = f"http://127.0.0.1:{port}"
        _wait_for(f"{uri}/health", process, log)
        yield uri
    finally:
        # Its workers are in its group, which is its own.
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)


def _wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.2)
    raise AssertionError(f"mlflow server did not start: {log.read_text()[-2000:]}")


__all__ = ["NotInstallableError", "bare_environment", "installed", "tracking_server"]
