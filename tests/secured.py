"""A certificate authority of the tests' own, and tokens: what a server is started with, and what its clients bring."""

from dataclasses import dataclass
from pathlib import Path

import trustme

TOKENS = {"reader": "r-secret", "writer": "w-secret", "admin": "a-secret"}


def secret(path: Path, text: str, mode: int = 0o600) -> str:
    """A file that its owner alone reads."""
    path.touch(0o600)
    path.write_text(text, encoding="ascii")
    path.chmod(mode)
    return str(path)


@dataclass(frozen=True)
class Secured:
    """Files of TLS and tokens below a directory."""

    directory: Path
    ca: str
    cert: str
    key: str
    tokens: str

    @property
    def server(self) -> list[str]:
        """Options of `collector serve` and `quantizer serve`."""
        return ["--tls_cert", self.cert, "--tls_key", self.key, "--token_file", self.tokens]

    def token(self, role: str) -> str:
        """The file of a token; of a role that is none, one that no server knows."""
        return secret(self.directory / f"{role}.token", f"{TOKENS.get(role, 'unknown-secret')}\n")

    def client(self, role: str, prefix: str = "") -> list[str]:
        """Options of a client that has a role's token."""
        return [f"--{prefix}tls_ca", self.ca, f"--{prefix}token_file", self.token(role)]


def secured(directory: Path) -> Secured:
    """Make the files in a directory, in place of those before; the directory is made too."""
    directory.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost", common_name="server")
    ca, cert = directory / "ca.pem", directory / "server.pem"
    authority.cert_pem.write_to_path(str(ca))
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key = secret(directory / "server.key", issued.private_key_pem.bytes().decode("ascii"))
    lines = "".join(f"{role} {role}-name {token}\n" for role, token in TOKENS.items())
    return Secured(directory, str(ca), str(cert), key, secret(directory / "tokens", lines))
