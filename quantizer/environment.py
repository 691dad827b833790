"""Where an experiment ran: what one needs to know to compare it with others, and nothing secret."""

import getpass
import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

_PACKAGES = {
    "torch": "torch",
    "lm_eval": "lm-eval",
    "transformers": "transformers",
    "mamba_ssm": "mamba-ssm",
    "causal_conv1d": "causal-conv1d",
    "triton": "triton",
    "qlog_ssm": "qlog-ssm",
}
# By name: everything else in the environment stays out of the record.
_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "PYTORCH_CUDA_ALLOC_CONF",
    "QLOG_ASSETS",
    "TOKENIZERS_PARALLELISM",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "TRITON_F32_DEFAULT",
)
_GIT_TIMEOUT_S = 2.0


def describe(device: str) -> dict[str, Any]:
    """The record's `environment`; what is not there is None.

    Args:
        device: "cpu" or "cuda:N", whose GPU is named.
    """
    sha, dirty = _git_state(Path.cwd())
    return {
        "host": socket.gethostname(),
        "user": _user(),
        "git_sha": sha,
        "git_dirty": dirty,
        "python": platform.python_version(),
        **{key: _version(package) for key, package in _PACKAGES.items()},
        "cuda": _cuda_version(),
        "gpu": _gpu_name(device),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A user id without a name, in a container.
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_state(directory: Path) -> tuple[str | None, bool | None]:
    """Commit and whether tracked files differ from it; None where there is no repository, or git takes too long."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(directory), *arguments],
                capture_output=True,
                text=True,
                timeout=_GIT_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
            return None
        return done.stdout if done.returncode == 0 else None

    sha = git("rev-parse", "HEAD")
    if sha is None:
        return None, None
    changes = git("--no-optional-locks", "status", "--porcelain", "--untracked-files=no")
    return sha.strip(), None if changes is None else bool(changes.strip())


def _cuda_version() -> str | None:
    torch: Any = sys.modules.get("torch")
    return getattr(torch.version, "cuda", None) if torch is not None else None


def _gpu_name(device: str) -> str | None:
    torch: Any = sys.modules.get("torch")
    if torch is None or not device.startswith("cuda"):
        return None
    return str(torch.cuda.get_device_name(device))


__all__ = ["describe"]
