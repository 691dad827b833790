"""Who may call what: roles, tokens, certificates, and addresses that others reach."""

import ssl
from pathlib import Path

import grpc
import pytest
import trustme
from qlog.v1 import collector_pb2 as wire
from qlog.v1.credentials import Credentials, CredentialsError
from qlog.v1.secrets import read_token
from qlog.v1.serving.access import COMMON_ROLES, Caller, TokenAccess
from qlog.v1.serving.listening import Listening

from client.entry import main as qlog
from collector.auth import ROLES
from collector.entry import main
from tests.collector.builders import connected, new_id, requests, serving, whole

TOKENS = "reader ann r-secret\nwriter gpu1 w-secret\nadmin root a-secret\n"


def secret(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def token_of(tmp_path: Path, name: str) -> str:
    return secret(tmp_path / f"{name}.token", f"{name[0]}-secret\n")


def test_every_call_has_its_role():
    """The table is total over the services that the collector has, and names no others."""
    service = wire.DESCRIPTOR.services_by_name["CollectorService"]
    assert set(ROLES) == {f"/{service.full_name}/{method.name}" for method in service.methods} | set(COMMON_ROLES)


def test_roles_are_kept_apart(tmp_path, log_dir):
    """No token or a wrong one: UNAUTHENTICATED; one without the role: PERMISSION_DENIED; health is open."""
    where = Listening(token_file=secret(tmp_path / "tokens", TOKENS))
    with serving(log_dir, listening=where) as client, connected(client.server.endpoint) as (stub, _):

        def code(call, token):
            metadata = [] if token is None else [("authorization", f"Bearer {token}")]
            try:
                answer = call(metadata)
                list(answer) if hasattr(answer, "__next__") else answer
            except grpc.RpcError as error:
                return error.code() if "secret" not in error.details() else "a secret is told"
            return grpc.StatusCode.OK

        def query(metadata):
            return stub.ListExperiments(wire.ListExperimentsRequest(), timeout=10, metadata=metadata)

        def append(metadata):
            return stub.AppendExperiment(requests(new_id(), whole()), timeout=10, metadata=metadata)

        def annotate(metadata):
            return stub.AnnotateExperiment(wire.AnnotateExperimentRequest(), timeout=10, metadata=metadata)

        ok, unknown, denied = (
            grpc.StatusCode.OK,
            grpc.StatusCode.UNAUTHENTICATED,
            grpc.StatusCode.PERMISSION_DENIED,
        )
        for call in (query, append, annotate):
            assert code(call, None) is code(call, "wrong-secret") is code(call, "") is unknown
        assert [code(query, f"{name}-secret") for name in "rwa"] == [ok, denied, ok]
        assert [code(append, f"{name}-secret") for name in "rwa"] == [denied, ok, ok]
        assert code(annotate, "r-secret") is code(annotate, "w-secret") is denied
        assert code(annotate, "a-secret") not in (denied, unknown)


def test_tokens_are_replaced_while_the_server_runs(tmp_path):
    """What is read again counts; a file that cannot be used changes nothing."""
    path = tmp_path / "tokens"
    secret(path, TOKENS)
    access = TokenAccess(path)
    secret(path, "reader new n-secret")
    access.reload()
    assert access.identify(Caller("r-secret", None)) is None
    path.write_text("nonsense")
    access.reload()
    assert access.identify(Caller("n-secret", None)).name == "new"


@pytest.mark.parametrize(
    "text", ["", "reader", "king ann s3cret", "reader a b s3cret", "reader s3cret\nwriter s3cret", "reader s3cr\u00e9t"]
)
def test_a_token_file_that_is_wrong_shows_no_secret(tmp_path, text):
    """One line with the file's name, and nothing of what is in it."""
    path = secret(tmp_path / "tokens", text)
    assert main(["serve", "--port", "0", "--log_dir", str(tmp_path / "logs"), "--token_file", path]) == 1
    with pytest.raises(CredentialsError) as caught:
        TokenAccess(Path(path))
    assert "s3cr" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_everybody_reads_are_refused(tmp_path):
    """Tokens open to others are no secrets."""
    for mode in (0o644, 0o604, 0o620):
        with pytest.raises(CredentialsError, match="chmod 600"):
            read_token(Path(secret(tmp_path / "token", "abc", mode)))


def test_a_token_does_not_leave_the_machine_unencrypted(tmp_path):
    """Unless that is said to be meant."""
    path = secret(tmp_path / "token", "abc")
    with pytest.raises(CredentialsError, match="--insecure"):
        Credentials(token_file=path).check("store.example:50551")
    Credentials(token_file=path, insecure=True).check("store.example:50551")
    Credentials(token_file=path).check("127.0.0.1:50551")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def issued(authority: trustme.CA, directory: Path, name: str) -> tuple[str, str]:
    cert = authority.issue_cert("127.0.0.1", "localhost", common_name=name)
    pem, key = directory / f"{name}.pem", directory / f"{name}.key"
    pem.write_bytes(b"".join(blob.bytes() for blob in cert.cert_chain_pems))
    key.touch(0o600)
    key.write_bytes(cert.private_key_pem.bytes())
    return str(pem), str(key)


@pytest.mark.parametrize("mutual", [False, True])
def test_qlog_reads_over_tls(authority, tmp_path, log_dir, capsys, mutual):
    """With the authority, the token, and the certificate where one is asked for; else one line, exit 1."""
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    cert, key = issued(authority, tmp_path, "server")
    mine = issued(authority, tmp_path, "ann")
    where = Listening(
        tls_cert=cert,
        tls_key=key,
        tls_client_ca=str(ca) if mutual else None,
        token_file=secret(tmp_path / "tokens", TOKENS),
    )
    given = {"--tls_ca": str(ca), "--token_file": token_of(tmp_path, "reader")}
    if mutual:
        given |= {"--tls_cert": mine[0], "--tls_key": mine[1]}
    with serving(log_dir, listening=where) as client:

        def ask(options):
            words = [word for pair in options.items() for word in pair]
            code = qlog(["list", "--format", "json", "--collector", client.server.endpoint, *words])
            captured = capsys.readouterr()
            assert "secret" not in captured.out + captured.err
            return code, captured.err

        assert ask(given) == (0, "")
        lacking = [
            {name: value for name, value in given.items() if name != left} for left in ("--tls_ca", "--token_file")
        ]
        if not mutual:
            for options in lacking:
                code, err = ask(options)
                assert (code, err.count("\n")) == (1, 1)
        code, err = ask({**given, "--token_file": token_of(tmp_path, "writer")})
        assert (code, err.count("\n")) == (1, 1)
        assert "ListExperiments takes the role" in err


def test_a_key_that_is_not_the_certificates_is_said_to_be(authority, tmp_path, capsys):
    """Before anything is served: one line, exit 1."""
    cert, _ = issued(authority, tmp_path, "one")
    _, key = issued(authority, tmp_path, "two")
    with pytest.raises(ssl.SSLError):
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    assert main(["serve", "--port", "0", "--log_dir", str(tmp_path / "l"), "--tls_cert", cert, "--tls_key", key]) == 1
    assert "cannot be used together" in capsys.readouterr().err


def test_what_cannot_be_parsed_is_the_senders_mistake(client):
    """Random bytes are INVALID_ARGUMENT, in unary calls and in streams; never INTERNAL."""
    service = wire.DESCRIPTOR.services_by_name["CollectorService"]
    junk = b"\xff\xff\xff\xff\x0f\x01junk"
    for method in service.methods:
        kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        call = getattr(client.channel, kind)(f"/{service.full_name}/{method.name}")
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([junk]) if method.client_streaming else junk, timeout=10))
        if method.name != "ImportExperiments":
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, method.name
