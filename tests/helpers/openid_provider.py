"""A small OpenID provider that signs real tokens, and lies on demand.

It consents at once: GET /authorize redirects back with a code. Codes work once, and only with the
verifier of their PKCE challenge. `lies` are put into the next id tokens.
"""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import NameOID
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

Kind = Literal["RS256", "ES256"]

LOOPBACK = IPv4Address("127.0.0.1")
CLIENT_ID, CLIENT_SECRET = "headrace", "a client's secret: / and %"


@dataclass
class Account:
    subject: str = "subject-1"
    email: str = "ann@example.com"
    email_verified: bool | None = True
    name: str = "Ann"

    def claims(self) -> dict[str, Any]:
        claims: dict[str, Any] = {"sub": self.subject, "email": self.email, "name": self.name}
        if self.email_verified is not None:
            claims["email_verified"] = self.email_verified
        return claims


class SigningKey:
    """A key, and its public half as the JWKS has it."""

    def __init__(self, algorithm: Kind = "RS256") -> None:
        self.kid, self.algorithm = secrets.token_hex(4), algorithm
        if algorithm == "RS256":
            private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            self.private: Any = private
            public = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
        else:
            self.private = ec.generate_private_key(ec.SECP256R1())
            public = ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        self.public = {**public, "kid": self.kid, "use": "sig", "alg": algorithm}

    def sign(self, claims: dict[str, Any], **header: str) -> str:
        return jwt.encode(claims, self.private, self.algorithm, {"kid": self.kid, **header})


@dataclass
class OpenIdProvider:
    issuer: str = ""
    account: Account = field(default_factory=Account)
    key: SigningKey = field(default_factory=SigningKey)
    lies: dict[str, Any] = field(default_factory=dict)
    """Claims in place of the true ones; None leaves a claim out."""
    token: str | None = None
    """Given out in place of an id token."""
    document: dict[str, Any] = field(default_factory=dict)
    """Members of the configuration in place of the true ones."""
    down: bool = False
    asked: list[str] = field(default_factory=list)
    """Paths of all calls."""
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def rotate_key(self, algorithm: Kind = "RS256") -> None:
        self.key = SigningKey(algorithm)

    def configuration(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            **self.document,
        }

    def authorize(self, query: dict[str, str]) -> str:
        """Return where the browser goes back to."""
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        assert query["client_id"] == CLIENT_ID
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        answer = {"code": code, "state": query["state"], "iss": self.issuer}
        return f"{query['redirect_uri']}?{urlencode(answer)}"

    def redeem(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, str]]:
        scheme, _, encoded = authorization.partition(" ")
        if scheme == "Basic":
            user, _, password = base64.b64decode(encoded).decode().partition(":")
            client = unquote(user), unquote(password)
        else:
            client = form.get("client_id", ""), form.get("client_secret", "")
        if client != (CLIENT_ID, CLIENT_SECRET):
            return 401, {"error": "invalid_client"}
        begun = self.codes.pop(form["code"], None)
        digest = sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if begun is None or begun["code_challenge"] != challenge:
            return 400, {"error": "invalid_grant"}
        if begun["redirect_uri"] != form["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        return 200, {"id_token": self.token or self.id_token(begun["nonce"])}

    def id_token(self, nonce: str) -> str:
        now = int(time.time())
        true = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": nonce}
        claims = {**true, **self.account.claims(), **self.lies}
        return self.key.sign({name: value for name, value in claims.items() if value is not None})


def write_certificate(path: Path) -> None:
    """Write a certificate of 127.0.0.1 that is its own authority, and its key, to one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "login")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(LOOPBACK)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + certificate.public_bytes(Encoding.PEM))


class _Handler(BaseHTTPRequestHandler):
    provider: OpenIdProvider

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.provider.asked.append(self.path)
        url = urlsplit(self.path)
        if self.provider.down:
            self.send_error(503)
        elif url.path == "/authorize":
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            self.send_response(302)
            self.send_header("location", self.provider.authorize(query))
            self.send_header("content-length", "0")
            self.end_headers()
        elif url.path == "/keys":
            self.answer(200, {"keys": [self.provider.key.public]})
        elif url.path == "/.well-known/openid-configuration":
            self.answer(200, self.provider.configuration())
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        self.provider.asked.append(self.path)
        content = self.rfile.read(int(self.headers["content-length"])).decode()
        if self.provider.down:
            self.send_error(503)
            return
        form = {name: values[0] for name, values in parse_qs(content).items()}
        self.answer(*self.provider.redeem(form, self.headers.get("authorization", "")))

    def answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def openid_provider(*, certificate: Path | None = None) -> Iterator[OpenIdProvider]:
    """Serve a provider; by https if there is a file to write its certificate to."""
    provider = OpenIdProvider()

    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Handler", (_Handler,), {"provider": provider})
    )
    provider.issuer = f"http://127.0.0.1:{server.server_port}"
    if certificate is not None:
        write_certificate(certificate)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        provider.issuer = provider.issuer.replace("http:", "https:")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
