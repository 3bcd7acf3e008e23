"""The proxy that a team's MLflow server stands behind: a password, TLS, a limit, a count."""

import base64
import datetime
import http.client
import http.server
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

LOGIN = ("user", "s3cret")

USES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
    *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)
"""All that a key may be used for: Python 3.13 asks an authority to say so."""


@dataclass
class Gate:
    """A proxy that runs.

    Attributes:
        address: Where it listens.
        locked: Whether it asks for `LOGIN`.
        limit: Bytes of the largest request that passes.
        requests: Method and path of what it was asked.
    """

    address: str
    locked: bool
    limit: int = 10**9
    requests: list[tuple[str, str]] = field(default_factory=list)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: the kernel delays a second one
    gate: Gate
    behind: str

    def forward(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.gate.requests.append((self.command, urlsplit(self.path).path))
        if self.gate.locked and not self._knows_the_password():
            self._refuse(401, length)
        elif length > self.gate.limit:
            self._refuse(413, length)
        else:
            self._pass_on(length)

    def _knows_the_password(self) -> bool:
        expected = base64.b64encode(":".join(LOGIN).encode()).decode()
        return self.headers.get("Authorization") == f"Basic {expected}"

    def _refuse(self, status: int, length: int) -> None:
        self.rfile.read(length)
        self._answer(status, b"<html>no</html>", {})

    def _pass_on(self, length: int) -> None:
        kept = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "authorization")}
        address = urlsplit(self.behind).netloc
        with closing(http.client.HTTPConnection(address, timeout=60)) as target:
            target.request(self.command, self.path, self.rfile.read(length), kept)
            answer = target.getresponse()
            body = answer.read()
        kind = answer.headers.get("Content-Type")
        self._answer(answer.status, body, {"Content-Type": kind} if kind else {})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward  # noqa: N815

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def gate(behind: str, locked: bool = False, tls: ssl.SSLContext | None = None) -> Iterator[Gate]:
    """Yield a proxy in front of the server at `behind`."""
    handler = type("Handler", (_Handler,), {"behind": behind})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients hang up
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        scheme = "https" if tls else "http"
        address = f"{scheme}://127.0.0.1:{server.server_address[1]}{urlsplit(behind).path}"
        handler.gate = own = Gate(address, locked)  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield own
        finally:
            server.shutdown()


@dataclass(frozen=True)
class Certificates:
    """Files of a certificate authority, a server of 127.0.0.1 and a client.

    Attributes:
        authority: The certificate that both of the others are signed with.
        server: Certificate and key of the server.
        client: Certificate and key of the client.
    """

    authority: Path
    server: Path
    client: Path

    def for_server(self, ask_clients: bool) -> ssl.SSLContext:
        """Return the settings of a server, which takes only the client's certificate or any."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server)
        if ask_clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.authority)
        return context


def make_certificates(folder: Path) -> Certificates:
    """Write certificates to `folder` that are good for a day."""
    authority, signer = _certificate("authority", None)
    files = {
        "authority": authority,
        **{n: _certificate(n, signer)[0] for n in ("server", "client")},
    }
    for name, content in files.items():
        (folder / f"{name}.pem").write_bytes(content)
    return Certificates(*(folder / f"{name}.pem" for name in files))


def _certificate(name: str, signer: "tuple | None") -> "tuple[bytes, tuple]":  # type: ignore[type-arg]
    """Return a certificate with its key as PEM, and both as objects to sign others with."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    issuer, issuer_key = (signer[0].subject, signer[1]) if signer else (subject, key)
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**dict.fromkeys(USES, True)), critical=True)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
        .sign(issuer_key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem, (certificate, key)
