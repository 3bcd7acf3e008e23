"""Answers of a web server that misbehaves, for pytest-httpserver."""

import datetime
import hashlib
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from lora_compare.data.downloads import Remote

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
Answer = Callable[[Request], Response]
PAGE = b"<html>maintenance</html>"


def remote(server: HTTPServer, *paths: str, sha256: str | None = SHA256) -> Remote:
    """Return the file that a server has at `paths`, the first of them and its mirrors."""
    urls = [server.url_for(path) for path in paths]
    return Remote(urls, sha256, by_hand="fetch it by hand")


def serve(server: HTTPServer, path: str, answer: Response | Answer) -> None:
    """Let a server answer requests for `path` so."""
    handler = server.expect_request(path)
    if isinstance(answer, Response):
        handler.respond_with_response(answer)
    else:
        handler.respond_with_handler(answer)


def asked(server: HTTPServer) -> list[str]:
    """Return the path of every request so far."""
    return [request.path for request, _ in server.log]


def whole(content: bytes = CONTENT) -> Response:
    """Send everything."""
    return Response(content, content_type="application/octet-stream")


def promised(body: Iterator[bytes] | list[bytes], size: int = len(CONTENT)) -> Response:
    """Send `body`, whatever it is, after the promise of `size` bytes; then close."""
    return Response(body, headers={"Content-Length": str(size)})


def status(code: int, **headers: str) -> Response:
    """Answer with a status and no file."""
    return Response("no", code, {name.replace("_", "-"): v for name, v in headers.items()})


def page() -> Response:
    """Send a web page where a file was asked for, and say that all is well."""
    return Response(PAGE, content_type="text/html")


def loop(path: str) -> Response:
    """Send a client to where it is."""
    return Response(status=302, headers={"Location": path})


@contextmanager
def tunnel(target: HTTPServer) -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a proxy for HTTPS that leads to `target` alone, and who was asked for.

    pytest-httpserver speaks HTTP; what follows a CONNECT is TLS that a proxy does not read.
    """
    hosts: list[str] = []

    def lead(client: socket.socket) -> None:
        with client, socket.create_connection((target.host, target.port)) as server:
            hosts.append(re.split(rb"\s", client.recv(2**16))[1].decode())
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            threading.Thread(target=copy, args=(client, server)).start()
            copy(server, client)

    def copy(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(2**16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:  # one side has hung up, and so the tunnel is at its end
            return

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # the test has ended
                return
            threading.Thread(target=lead, args=(client,)).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", hosts
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


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
