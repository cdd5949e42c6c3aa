"""The certificates of one machine's mesh, in its state directory.

    tls/ca.crt           authorities that clients and processes trust
    tls/ca.key           the one that signs: its key and its certificate
    tls/ROLE             link to a directory with ca.crt, tls.crt and tls.key of the role
    tls/public           the same for the listener that clients connect to
    tls/given            the certificate and key that the user has given for that listener

A role's three files are exchanged together, by one move of its link: Envoy watches for it, and no
reader finds a certificate beside another's key.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from secrets import token_hex

from headrace.credentials.secret_files import InsecureSecretFile, check_secret_file
from headrace.credentials.tls_files import TlsPaths
from headrace.rpc.identity import PUBLIC
from headrace.supervisor.servers.certificates import Pair, issue, make_authority
from headrace.supervisor.state.failures import InvalidOption
from headrace.supervisor.state.files import SECRET_MODE, write_atomically

GIVEN = "given"
OPERATOR = "operator"
"""What the supervisor and the commands have."""
ROLES = ("nats", "scheduler", "worker", "gateway", "control", "web", "envoy", OPERATOR, PUBLIC)
_NAME = "mesh"
_BEGIN = b"-----BEGIN CERTIFICATE-----\n"


class TlsStore:
    """The certificates under `folder`. Several processes may change them at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "ca.crt"
        self._ca_key = folder / "ca.key"
        self._next_key = folder / "next.key"

    def paths(self, role: str) -> TlsPaths:
        at = self.folder / role
        return TlsPaths(at / "ca.crt", at / "tls.crt", at / "tls.key")

    @property
    def exists(self) -> bool:
        return self._ca_key.exists()

    def roles(self) -> list[str]:
        """Return who has a certificate here, the given one first."""
        return [role for role in (GIVEN, *ROLES) if (self.folder / role).exists()]

    def read(self, role: str) -> Pair:
        paths = self.paths(role)
        return Pair(paths.cert.read_bytes(), paths.key.read_bytes())

    def prepare(self, now: datetime, hosts: Iterable[str]) -> None:
        """Make what is missing, due for renewal or lacks one of the public listener's `hosts`."""
        expected = {PUBLIC: tuple(hosts)}
        with self._locked():
            self._sweep()
            if not self.exists:
                self._write_authority(make_authority(now))
            self._issue(
                now,
                {
                    role: expected.get(role, ())
                    for role in ROLES
                    if self._lacks(role, now, expected)
                },
            )

    def _lacks(self, role: str, now: datetime, expected: Mapping[str, tuple[str, ...]]) -> bool:
        try:
            pair = self.read(role)
        except OSError:
            return True
        is_known = set(expected.get(role, ())) <= set(pair.hosts)
        return pair.is_due(now) or not is_known or not pair.is_signed_by(self._authority())

    def renew(self, now: datetime, *, all_roles: bool = False) -> list[str]:
        """Renew certificates that are due, or all; return their roles."""
        with self._locked():
            due = [role for role in ROLES if all_roles or self.read(role).is_due(now)]
            self._issue(now, {role: self.read(role).hosts for role in due})
        return due

    def add_authority(self, now: datetime) -> None:
        """Make another authority, which everything trusts beside the others, and signs nothing yet.

        `begin_authority` lets it sign, once everything has read that it is trusted.
        """
        with self._locked():
            new = make_authority(now)
            _write_secret(self._next_key, new.key + new.certificate)
            self._trust(self.ca.read_bytes() + new.certificate)

    def begin_authority(self, now: datetime) -> None:
        """Let the authority sign that was added last, and sign everything by it."""
        with self._locked():
            self._next_key.replace(self._ca_key)
            self._issue(now, {role: self.read(role).hosts for role in ROLES})

    def forget_authorities(self) -> int:
        """Trust the authority that signs alone; return how many others were trusted."""
        with self._locked():
            others = self.ca.read_bytes().count(_BEGIN) - 1
            self._trust(self._authority().certificate)
        return others

    def take(self, cert: Path, key: Path) -> bool:
        """Copy what the user has given for the public listener; return whether it has changed.

        Raises:
            InvalidOption: the two are no certificate with its key, or others can read the key.
        """
        try:
            check_secret_file(key)
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
            pair = Pair(cert.read_bytes(), key.read_bytes())
        except (InsecureSecretFile, OSError) as error:
            fact = error if isinstance(error, InsecureSecretFile) else f"{cert} and {key}: {error}"
            raise InvalidOption(f"--tls-cert and --tls-key cannot be used: {fact}") from error
        with self._locked():
            if (self.folder / GIVEN).exists() and self.read(GIVEN) == pair:
                return False
            self._exchange(GIVEN, pair)
        return True

    def _authority(self) -> Pair:
        key, begin, certificate = self._ca_key.read_bytes().partition(_BEGIN)
        return Pair(begin + certificate, key)

    def _write_authority(self, authority: Pair) -> None:
        write_atomically(self.ca, authority.certificate.decode())
        _write_secret(self._ca_key, authority.key + authority.certificate)

    def _trust(self, authorities: bytes) -> None:
        """Have everything trust these, and keep its certificate."""
        write_atomically(self.ca, authorities.decode())
        for role in ROLES:
            self._exchange(role, self.read(role))

    def _issue(self, now: datetime, hosts: Mapping[str, Iterable[str]]) -> None:
        authority = self._authority()
        for role, names in hosts.items():
            self._exchange(role, issue(authority, role, _NAME, now=now, hosts=names))

    def _exchange(self, role: str, pair: Pair) -> None:
        link = self.folder / role
        old = link.resolve() if link.is_symlink() else None
        new = self.folder / f".{role}.{token_hex(6)}"
        new.mkdir(mode=0o700)
        write_atomically(new / "ca.crt", self.ca.read_text())
        write_atomically(new / "tls.crt", pair.certificate.decode())
        _write_secret(new / "tls.key", pair.key)
        draft = self.folder / f".{role}.link"
        draft.unlink(missing_ok=True)
        draft.symlink_to(new.name)
        os.replace(draft, link)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what a crash in the middle of an exchange has left."""
        used = {link.resolve() for link in self.folder.iterdir() if link.is_symlink()}
        for each in self.folder.iterdir():
            if each.is_dir() and not each.is_symlink() and each.resolve() not in used:
                shutil.rmtree(each, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _write_secret(path: Path, content: bytes) -> None:
    write_atomically(path, content.decode(), mode=SECRET_MODE)
