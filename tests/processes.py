"""Programs of this project in processes of their own."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def started(*words: str, **environment: str) -> "subprocess.Popen[str]":
    """A module of this project in a process of its own; with "-c" first, a program."""
    return subprocess.Popen(
        [sys.executable, *([] if words[0] == "-c" else ["-m"]), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | environment,
    )


@contextmanager
def running(*words: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """The same for a while: killed at the end where it still lives, whatever happened to the test."""
    with started(*words, **environment) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def serving(*words: str, errors: list[str] | None = None) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A server in a process of its own, and its address once it listens; `errors` gets what it says beside that."""
    process = started(*words)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        errors = [] if errors is None else errors
        reader = threading.Thread(target=lambda: errors.extend(process.stderr or ()), daemon=True)
        reader.start()  # Nothing that it says may fill the pipe and stop it.
        line = process.stdout.readline()
        assert "listening on " in line, (line, errors)
        yield process, line.partition("listening on ")[2].split()[0].rstrip(",;")
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(5)
        process.stdout.close()
        process.stderr.close()
