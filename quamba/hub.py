"""Files from the Hugging Face hub, and its cache on this machine."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal


def hub_file(repository: str, file: str, *, kind: Literal["model", "dataset"]) -> Path:
    """A file of a repository: the cached one where there is one, else downloaded.

    Raises:
        OSError: it cannot be had; the message is one line.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(repository, file, repo_type=kind)
    if isinstance(cached, str):
        return Path(cached)
    try:
        with _quiet_retries():
            return Path(hf_hub_download(repository, file, repo_type=kind))
    except Exception as error:  # the client passes on the errors of several libraries
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OSError(f"{file} of {repository} cannot be fetched from the Hugging Face hub ({reason})") from error


@contextmanager
def _quiet_retries() -> Iterator[None]:
    """Without the client's line for each attempt: what it ends with is told once."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


__all__ = ["hub_file"]
