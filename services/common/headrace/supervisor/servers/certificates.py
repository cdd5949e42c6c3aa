"""The authority of a mesh and the certificates of its processes. Pure, but keys are random.

A certificate of role `gateway` has these names:

    spiffe://headrace/gateway/NAME     says what the process may call
    gateway.headrace.internal          what clients inside the mesh check that a server has
    localhost, 127.0.0.1, ::1, HOSTS   what clients from outside check
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from headrace.rpc.identity import server_name, spiffe_id

AUTHORITY_VALID = timedelta(days=3650)
VALID = timedelta(days=90)
RENEWED_AT = 2 / 3
"""Part of its life after which a certificate is renewed."""
_CLOCKS_DIFFER = timedelta(minutes=5)
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes = field(repr=False)

    @property
    def valid(self) -> tuple[datetime, datetime]:
        """When its validity begins and ends, in UTC."""
        found = x509.load_pem_x509_certificate(self.certificate)
        return found.not_valid_before_utc, found.not_valid_after_utc

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names and addresses at which others reach the process."""
        found = x509.load_pem_x509_certificate(self.certificate)
        try:
            names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return ()
        addresses = names.get_values_for_type(x509.IPAddress)
        return (*names.get_values_for_type(x509.DNSName), *map(str, addresses))

    def is_signed_by(self, authority: Pair) -> bool:
        ca = x509.load_pem_x509_certificate(authority.certificate)
        try:
            x509.load_pem_x509_certificate(self.certificate).verify_directly_issued_by(ca)
        except (ValueError, InvalidSignature):
            return False
        return True

    def is_due(self, now: datetime) -> bool:
        """Return whether it is time to renew it."""
        begin, end = self.valid
        return now >= begin + (end - begin) * RENEWED_AT


def make_authority(now: datetime, *, valid: timedelta = AUTHORITY_VALID) -> Pair:
    """Return a new authority, which signs certificates of processes alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    # Why the time in the name: clients that trust two authorities choose by the name.
    name = _name(f"Headrace mesh authority {now:%Y-%m-%dT%H:%M:%S.%fZ}")
    usage = x509.KeyUsage(
        key_cert_sign=True,
        crl_sign=True,
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        _builder(name, name, key.public_key(), (now - _CLOCKS_DIFFER, now + valid))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return _signed(builder, key, key)


def issue(
    authority: Pair,
    role: str,
    name: str,
    *,
    now: datetime,
    hosts: Iterable[str] = (),
    valid: timedelta = VALID,
) -> Pair:
    """Return a new key and its certificate for a process.

    Args:
        hosts: further names and addresses at which others reach the process.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    ca = x509.load_pem_x509_certificate(authority.certificate)
    ca_key = serialization.load_pem_private_key(authority.key, password=None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    # An authority must outlive what it signs.
    end = min(now + valid, ca.not_valid_after_utc)
    names: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(spiffe_id(role, name)),
        *map(_general_name, dict.fromkeys((server_name(role), *LOOPBACK_NAMES, *hosts))),
    ]
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        _builder(_name(f"{role} {name}"[:64]), ca.subject, key.public_key(), (_begin(now, ca), end))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
    )
    return _signed(builder, key, ca_key)


def _begin(now: datetime, ca: x509.Certificate) -> datetime:
    return max(now - _CLOCKS_DIFFER, ca.not_valid_before_utc)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    valid: tuple[datetime, datetime],
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid[0])
        .not_valid_after(valid[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _signed(
    builder: x509.CertificateBuilder,
    key: ec.EllipticCurvePrivateKey,
    by: ec.EllipticCurvePrivateKey,
) -> Pair:
    signed = builder.sign(by, hashes.SHA256())
    return Pair(
        signed.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
