"""A web server on loopback that misbehaves as it is told to."""

import datetime
import hashlib
import http.server
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lora_compare.data.downloads import Remote

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()

Answer = Callable[["Handler"], None]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the path's entry in the server's table, and keeps what was asked."""

    server: "Server"

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range")))
        self.server.answers.get(self.path, status(404))(self)

    do_HEAD = do_GET  # noqa: N815

    def do_CONNECT(self) -> None:
        """Be a proxy that answers in the place of the host that is asked for."""
        self.server.asked.append((self.path, None))
        self.send_response(200)
        self.end_headers()
        assert self.server.tls is not None
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
        self.close_connection = False

    def finish(self) -> None:
        super().finish()
        self.connection.close()

    def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """Answers each path as its entry in `answers` does.

    Attributes:
        answers: What to do by path.
        asked: Path and Range of every request so far; to a proxy for HTTPS, the host first.
        tls: What a proxy for HTTPS shows its clients.
    """

    daemon_threads = True
    # Requests that sleep must not hold up the end of a test.
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.tls: ssl.SSLContext | None = None

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that gives up is what these tests are about."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


@contextmanager
def running(server: socketserver.BaseServer) -> Iterator[None]:
    """Let a server answer in a thread of its own until the block ends."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


@contextmanager
def serving() -> Iterator[Server]:
    """Yield a server that runs until the block ends."""
    with Server() as server, running(server):
        yield server


def remote(server: Server, *paths: str, sha256: str | None = SHA256) -> Remote:
    """Return the file that a server has at `paths`, the first of them and its mirrors."""
    return Remote([server.url(path) for path in paths], sha256, by_hand="fetch it by hand")


def certify(folder: Path, *hosts: str) -> tuple[ssl.SSLContext, Path]:
    """Return what proves a server to be these hosts, and the file of who says so."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "certificate.pem", folder / "key.pem"
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return context, public


def start_of(handler: Handler) -> int:
    """Return the first byte that a request asks for."""
    return int((handler.headers.get("Range") or "bytes=0-")[6:-1])


def content_range(start: int, size: int = len(CONTENT)) -> str:
    """Return the header that names the bytes from `start` to the end."""
    return f"bytes {start}-{size - 1}/{size}"


def whole(handler: Handler) -> None:
    """Send everything, whatever range is asked for."""
    handler.reply(CONTENT)


def ranged(handler: Handler) -> None:
    """Serve what the Range asks for."""
    start = start_of(handler)
    if start >= len(CONTENT):
        handler.reply(b"", 416)
        return
    handler.reply(CONTENT[start:], 206 if start else 200, Content_Range=content_range(start))


def closing_early(step: int) -> Answer:
    """Serve at most `step` bytes of what is asked for, while promising all of it."""

    def answer(handler: Handler) -> None:
        start = start_of(handler)
        rest = CONTENT[start:]
        handler.reply(
            rest[:step],
            206 if start else 200,
            Content_Length=str(len(rest)),
            Content_Range=content_range(start),
        )
        handler.close_connection = True

    return answer


def status(code: int, **headers: str) -> Answer:
    """Answer with a status and no file."""
    return lambda handler: handler.reply(b"no", code, **headers)


def page(handler: Handler) -> None:
    """Send a web page where a file was asked for, and say that all is well."""
    handler.reply(b"<html>maintenance</html>", Content_Type="text/html")
