"""What deploy/ starts can be started: its commands parse, its files are there, its health check tells the truth."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from collector.embedded import open_local
from tests.documents import ROOT, parse

DEPLOY = ROOT / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
DOCKERFILES = sorted(path for path in DEPLOY.glob("Dockerfile.*") if path.suffix != ".dockerignore")


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_the_services_start_programs_with_options_that_they_have() -> None:
    """ExecStart parses, with the values that the unit itself gives its variables."""
    assert len(UNITS) == 2
    for unit in UNITS:
        lines = unit.read_text(encoding="utf-8").splitlines()
        given = dict(
            pair.split("=", 1) for line in lines if line.startswith("Environment=") for pair in line[12:].split()
        )
        given["MODEL_ROOT"] = "models"  # Has to exist where this runs.
        [start] = [line.partition("=")[2] for line in lines if line.startswith("ExecStart=")]
        command = start.replace("%S", "/var/lib")
        for name, value in given.items():
            command = command.replace(f"${{{name}}}", value)
        words = [word for word in command.split() if not word.startswith("$")]
        parse(shlex.join([Path(words[0]).name, *words[1:]]))


def test_the_example_settings_are_those_that_the_services_read() -> None:
    """Each variable of an ExecStart is in the example file, which has no others but those that programs know."""
    text = (ROOT / "deploy" / "qlog.env.example").read_text(encoding="utf-8")
    offered = set(re.findall(r"^(\w+)=", text, re.MULTILINE))
    used = {name for unit in UNITS for name in re.findall(r"\$\{?(\w+)", unit.read_text(encoding="utf-8"))}
    assert used | {"QLOG_COLLECTOR", "HF_HUB_OFFLINE"} == offered


def test_the_images_start_programs_with_options_that_they_have() -> None:
    """ENTRYPOINT and CMD parse together; run by a user who is not root, with a health check and a volume."""
    assert len(DOCKERFILES) == 2
    for dockerfile in DOCKERFILES:
        text = dockerfile.read_text(encoding="utf-8")
        final = text[text.rindex("\nFROM ") :]
        [entry] = re.findall(r"^ENTRYPOINT \[(.*)\]$", final, re.MULTILINE)
        [arguments] = re.findall(r"^CMD \[(.*)\]$", final, re.MULTILINE)
        command = [*yaml.safe_load(f"[{entry}]"), *yaml.safe_load(f"[{arguments}]")]
        parse(shlex.join("models" if word == "/models" else word for word in command))
        assert re.search(r"^USER \d+:\d+$", final, re.MULTILINE)
        assert "HEALTHCHECK" in final
        assert re.search(r"^VOLUME /var/lib/qlog", final, re.MULTILINE)


def test_what_the_images_copy_is_there_and_is_sent() -> None:
    """COPY names files of the repository that the ignore file beside the Dockerfile lets through."""
    for dockerfile in DOCKERFILES:
        ignored = dockerfile.with_name(dockerfile.name + ".dockerignore").read_text(encoding="utf-8")
        allowed = {line[1:] for line in ignored.splitlines() if line.startswith("!")}
        copied = {
            source
            for line in re.findall(r"^COPY (?!--)(.*)$", dockerfile.read_text(encoding="utf-8"), re.MULTILINE)
            for source in line.split()[:-1]
        }
        assert copied <= allowed
        assert [source for source in sorted(allowed) if not (ROOT / source).exists()] == []


def test_the_compose_file_fits_the_images() -> None:
    """Services build what is there; ports and volumes are the images' own; nothing is published beyond loopback."""
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
    for name, service in compose["services"].items():
        dockerfile = ROOT / service["build"]["dockerfile"]
        text = dockerfile.read_text(encoding="utf-8")
        assert dockerfile.name == f"Dockerfile.{name}"
        for port in service["ports"]:
            host, inside = port.split(":")[0], port.rsplit(":", 1)[1]
            assert host == "127.0.0.1"
            assert f"EXPOSE {inside}\n" in text
        targets = {volume.removesuffix(":ro").rsplit(":", 1)[1] for volume in service["volumes"]}
        assert targets <= set(re.findall(r"/[\w/]+", text))
        named = {volume.split(":")[0] for volume in service["volumes"] if not volume.startswith("$")}
        assert named <= set(compose["volumes"])
        assert set(service["networks"]) <= set(compose["networks"])


def test_the_health_check_tells_who_serves(tmp_path: Path) -> None:
    """Exit code 0 for a server that serves; 1 and a reason where nobody does."""

    def check(endpoint: str) -> tuple[int, str]:
        ran = subprocess.run(
            [sys.executable, DEPLOY / "health.py", endpoint], capture_output=True, text=True, check=False, timeout=60
        )
        return ran.returncode, ran.stderr

    with open_local(tmp_path) as server:
        assert check(server.endpoint) == (0, "")
    assert check(server.endpoint) == (1, f"{server.endpoint}: UNAVAILABLE\n")
