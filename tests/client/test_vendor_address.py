"""The vendor's address as people write it: with `/v1`, or under the scheme that does not answer there."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support.client.client_shell import invoke
from support.client.fake_vendor import API_KEY, FakeVendor, served
from vl2v_client.api.client import VendorClient
from vl2v_client.core.errors import VendorError, VendorUnavailable


def open_client(url: str, transport: httpx.BaseTransport | None = None) -> VendorClient:
    return VendorClient(url, API_KEY, transport=transport, sleep=lambda _seconds: None)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("http://fake/v1", "http://fake"),
        ("http://fake:8000/v1/", "http://fake:8000"),
        ("http://fake/", "http://fake"),
        ("https://fake/teacher/v1", "https://fake/teacher"),
        ("https://fake/v10", "https://fake/v10"),
        ("http://fake/v1/embeddings", "http://fake"),
        ("https://fake/teacher/v1/models/", "https://fake/teacher"),
        ("https://fake/v1/teacher/", "https://fake/v1/teacher"),
        ("http://v1", "http://v1"),
    ],
)
def test_the_v1_that_openais_clients_want_makes_no_difference(written: str, meant: str) -> None:
    with VendorClient(written, None) as client:
        assert client.url == meant


def test_the_command_line_takes_the_address_that_openais_clients_have(vendor: FakeVendor, tmp_path: Path) -> None:
    with served(vendor) as url:
        environment = {"VL2V_API_KEY": API_KEY, "VL2V_CACHE": str(tmp_path / "client.db")}
        assert invoke(["audit", "--vendor-url", f"{url}/v1"], environment).exit_code == 0
    assert not [seen for seen in vendor.seen if "/v1/v1" in seen]


def test_https_at_a_vendor_of_plain_http(vendor: FakeVendor) -> None:
    sent: list[httpx.Headers] = []

    def before(request: httpx.Request) -> httpx.Response | None:
        sent.append(request.headers)
        return None

    vendor.before = before
    with (
        served(vendor) as url,
        open_client(url.replace("http:", "https:")) as client,
        pytest.raises(VendorError, match=f"there is no https at .*but {url} answers.*purchase.vendor_url"),
    ):
        client.model()
    assert len(sent) == 1
    assert "authorization" not in sent[0], "the key must not travel over plain HTTP unasked"


def test_plain_http_at_a_vendor_of_https(tmp_path: Path) -> None:
    with (
        served_over_tls(tmp_path) as url,
        open_client(url.replace("https:", "http:")) as client,
        pytest.raises(VendorError, match=f"there is no http at .*but {url} answers"),
    ):
        client.model()


def test_a_certificate_that_nobody_known_has_signed(tmp_path: Path) -> None:
    with (
        served_over_tls(tmp_path) as url,
        open_client(url) as client,
        pytest.raises(VendorUnavailable, match=r"certificate.*SSL_CERT_FILE"),
    ):
        client.model()


@pytest.mark.parametrize(("answering", "asked"), [("https", "http"), ("http", "https")])
def test_without_a_port_each_scheme_has_its_own(answering: str, asked: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.scheme != answering:
            raise httpx.ConnectError("[Errno 111] Connection refused", request=request)
        return httpx.Response(200, json={"status": "ok"})

    with (
        open_client(f"{asked}://fake", httpx.MockTransport(answer)) as client,
        pytest.raises(VendorError, match=f"but {answering}://fake answers"),
    ):
        client.model()


def test_a_web_server_that_refuses_plain_http_at_its_port_of_https() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.scheme == "http":
            return httpx.Response(400, text="The plain HTTP request was sent to HTTPS port")
        return httpx.Response(404)

    with (
        open_client("http://fake:8443", httpx.MockTransport(answer)) as client,
        pytest.raises(VendorError, match="but https://fake:8443 answers"),
    ):
        client.model()


def test_where_nobody_answers_either_scheme_the_message_is_as_before() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[Errno 111] Connection refused", request=request)

    with (
        open_client("http://fake", httpx.MockTransport(refuse)) as client,
        pytest.raises(VendorUnavailable, match="no vendor answers at http://fake"),
    ):
        client.model()


@contextmanager
def served_over_tls(folder: Path) -> Iterator[str]:
    """A server on loopback that answers HTTPS alone, with a certificate of its own making; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()

        def log_message(self, *values: object) -> None:
            return

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_values: object) -> None:
            return  # a handshake that fails is what the tests are about

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(folder))
    server = Quiet(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def self_signed(folder: Path) -> Path:
    """Key and certificate for 127.0.0.1 in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vendor")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "vendor.pem"
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path
