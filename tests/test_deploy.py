"""What deploy/ starts can be started: its commands parse, its files are there, its health check tells the truth."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from qlog.v1.serving.listening import Listening, OpenListeningError

from collector.embedded import open_local
from tests.documents import ROOT, parse
from tests.processes import serving
from tests.secured import secured

DEPLOY = ROOT / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
DOCKERFILES = sorted(path for path in DEPLOY.glob("Dockerfile.*") if path.suffix != ".dockerignore")


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def checked(command: Sequence[str]) -> None:
    """Parse the command line of a server, and see that it would not be refused to listen where it says."""
    words = [word for option in command for word in option.split("=")]
    context = parse(shlex.join("models" if word.endswith("/models") else word for word in words))
    Listening(**{field.name: context.params[field.name] for field in fields(Listening)}).check()


def start_of(unit: Path, **settings: str) -> list[str]:
    """ExecStart as systemd splits it, with the values that the unit itself gives its variables, or others."""
    lines = unit.read_text(encoding="utf-8").splitlines()
    given = dict(pair.split("=", 1) for line in lines if line.startswith("Environment=") for pair in line[12:].split())
    [start] = [line.partition("=")[2] for line in lines if line.startswith("ExecStart=")]
    command = start.replace("%S", "/var/lib")
    for name, value in (given | settings).items():
        command = re.sub(rf"\$\{{{name}\}}|\${name}\b", value, command)
    words = [word for word in command.split() if not word.startswith("$")]
    return [Path(words[0]).name, *words[1:]]


def example_settings() -> Iterator[tuple[str, str]]:
    """The variables of the example file, those that are commented out as well."""
    text = (DEPLOY / "qlog.env.example").read_text(encoding="utf-8")
    yield from re.findall(r"^#?(\w+)=(.*)$", text, re.MULTILINE)


def test_the_services_start_programs_with_options_that_they_have() -> None:
    """ExecStart parses and may listen: as it is, and for others with the options that the example file suggests."""
    assert len(UNITS) == 2
    suggested = {name: value for name, value in example_settings() if name.endswith("_OPTIONS") and value}
    for unit in UNITS:
        checked(start_of(unit))
        program = start_of(unit)[0].upper()
        with pytest.raises(OpenListeningError):
            checked(start_of(unit, **{f"{program}_HOST": "0.0.0.0"}))
        options = {f"{program}_HOST": "0.0.0.0", f"{program}_OPTIONS": suggested[f"{program}_OPTIONS"]}
        checked(start_of(unit, **options))


def test_the_example_settings_are_those_that_the_services_read() -> None:
    """Each variable of an ExecStart is in the example file, which has no others but those that programs know."""
    offered = {name for name, _ in example_settings()}
    used = {name for unit in UNITS for name in re.findall(r"\$\{?(\w+)", unit.read_text(encoding="utf-8"))}
    assert used - {"MAINPID"} | {"QLOG_COLLECTOR", "QLOG_TLS_CA", "QLOG_TOKEN_FILE", "HF_HUB_OFFLINE"} == offered


@pytest.mark.parametrize("program", ["collector", "quantizer"])
def test_the_example_configurations_are_ones(program: str, tmp_path: Path) -> None:
    """As they are, and with what is commented out: every key is a setting, every value one that it takes."""
    text = (DEPLOY / f"{program}.toml").read_text(encoding="utf-8")
    file = tmp_path / f"{program}.toml"
    for example in (text, re.sub(r"^#(?=\w+ = )", "", text, flags=re.MULTILINE)):
        file.write_text(example, encoding="utf-8")
        context = parse(f"{program} serve --config {file}")
        assert context.params["log_format"] == "json"
    assert context.params["token_file"] == "/etc/qlog/tokens"


def test_the_images_start_programs_with_options_that_they_have() -> None:
    """ENTRYPOINT and CMD parse together; run by a user who is not root, with a health check and a volume."""
    assert len(DOCKERFILES) == 2
    for dockerfile in DOCKERFILES:
        text = dockerfile.read_text(encoding="utf-8")
        final = text[text.rindex("\nFROM ") :]
        [entry] = re.findall(r"^ENTRYPOINT \[(.*)\]$", final, re.MULTILINE)
        [arguments] = re.findall(r"^CMD \[(.*)\]$", final, re.MULTILINE)
        command = [*yaml.safe_load(f"[{entry}]"), *yaml.safe_load(f"[{arguments}]")]
        checked(command)
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


class _Compose(yaml.SafeLoader):
    """YAML with compose's own tags."""


_Compose.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))


def compose_file(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load((DEPLOY / name).read_text(encoding="utf-8"), _Compose)
    return loaded


def test_the_compose_file_fits_the_images() -> None:
    """Services build what is there; ports and volumes are the images' own; nothing is published beyond loopback."""
    compose = compose_file("compose.yaml")
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


def test_containers_with_tls_start_servers_that_others_may_reach() -> None:
    """Every file is in the mounted directory and explained; nothing is insecure; ports are those of the images."""
    plain, compose = compose_file("compose.yaml"), compose_file("compose.tls.yaml")
    assert set(compose["services"]) == set(plain["services"])
    explained = set(
        re.findall(r"[\w.]+", (DEPLOY / "compose.tls.yaml").read_text(encoding="utf-8").split("services:")[0])
    )
    for name, service in compose["services"].items():
        assert "--insecure" not in service["command"]
        checked([name, *service["command"]])
        [volume] = service["volumes"]
        place = volume.removesuffix(":ro").rsplit(":", 1)[1]
        named = [*(word.partition("=")[2] for word in service["command"]), *service["environment"].values()]
        files = {Path(word) for word in named if word.startswith("/run/")}
        assert {str(file.parent) for file in files} == {place}
        assert {file.name for file in files} <= explained
        inside = {port.rsplit(":", 1)[1] for port in service["ports"]}
        assert inside == {port.rsplit(":", 1)[1] for port in plain["services"][name]["ports"]}


def test_prometheus_reads_what_the_containers_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables are the servers' own and open no more than the images do; targets are services with these ports."""
    compose, plain = compose_file("compose.metrics.yaml"), compose_file("compose.yaml")
    [job] = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text(encoding="utf-8"))["scrape_configs"]
    targets = dict(target.split(":") for target in job["static_configs"][0]["targets"])
    assert set(targets) == set(plain["services"])
    for name, port in targets.items():
        assert not compose["services"][name].get("ports")
        for variable, value in compose["services"][name]["environment"].items():
            monkeypatch.setenv(variable, value)
        with pytest.raises(OpenListeningError, match="metrics_host"):
            check_metrics(parse(f"{name} serve"))
        context = parse(f"{name} serve --host 0.0.0.0 --insecure")
        check_metrics(context)
        assert str(context.params["metrics_port"]) == port


def check_metrics(context: Any) -> None:
    where = Listening(**{field.name: context.params[field.name] for field in fields(Listening)})
    replace(where, host=context.params["metrics_host"]).check(option="--metrics_host")


def health(endpoint: str, **environment: str) -> tuple[int, str]:
    ran = subprocess.run(
        [sys.executable, DEPLOY / "health.py", endpoint],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"GRPC_VERBOSITY": "NONE"} | environment,
    )
    return ran.returncode, ran.stderr


def test_the_health_check_tells_who_serves(tmp_path: Path) -> None:
    """Exit code 0 for a server that serves; 1 and a reason where nobody does."""
    with open_local(tmp_path) as server:
        assert health(server.endpoint) == (0, "")
    assert health(server.endpoint) == (1, f"{server.endpoint}: UNAVAILABLE\n")


def test_the_health_check_of_a_server_with_tls(tmp_path: Path) -> None:
    """The very command of the compose file, its files elsewhere: healthy without a token, to whoever trusts it."""
    files = secured(tmp_path / "run" / "qlog")
    service = compose_file("compose.tls.yaml")["services"]["collector"]
    moved = {"/run/qlog/collector.pem": files.cert, "/run/qlog/collector.key": files.key, "0.0.0.0": "127.0.0.1"}
    moved |= {"/run/qlog/tokens": files.tokens, "50551": "0", "/var/lib/qlog": str(tmp_path / "store")}
    words = [word for option in service["command"] for word in option.split("=")]
    with serving("collector.entry", *(moved.get(word, word) for word in words)) as (_, endpoint):
        trusted = {"HEALTH_TLS_CA": files.ca, "HEALTH_TLS_NAME": "localhost"}
        assert health(endpoint, **trusted) == (0, "")
        assert health(endpoint, **trusted | {"HEALTH_TLS_NAME": "elsewhere"}) == (1, f"{endpoint}: UNAVAILABLE\n")
        assert health(endpoint) == (1, f"{endpoint}: UNAVAILABLE\n")
        code, error = health(endpoint, HEALTH_TLS_CA=str(tmp_path / "nothing"))
        assert (code, error.count("\n")) == (1, 1)
