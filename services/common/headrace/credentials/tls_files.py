"""The certificate, the key and the authority that a process uses on the lines inside the mesh.

The files may be replaced while the process runs: each new connection uses what they hold then. A
pair that does not match, as between the replacement of one file and of the other, leaves what was
read before in use.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.credentials.secret_files import InsecureSecretFile, check_secret_file

log = logging.getLogger(__name__)

_State = tuple[int, int, int]


class InvalidTls(ValueError):
    """The files are no certificate, key and authority that belong together; the text says why."""


@dataclass(frozen=True, slots=True)
class TlsPaths:
    """Where they are, as the settings tls_ca_file, tls_cert_file and tls_key_file say."""

    ca: Path
    """The certificates that peers must be signed by; one or several, in PEM."""
    cert: Path
    """The certificate of this process, and those between it and the authority, in PEM."""
    key: Path
    """Its private key, in PEM."""


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """What the files held at one time, in PEM."""

    ca: bytes
    cert: bytes
    key: bytes = field(repr=False)
    context: ssl.SSLContext
    """For connections that this process opens; TLS 1.3 alone."""


class TlsFiles:
    """The files, read again when they have changed.

    Raises:
        InvalidTls: they cannot be used.
    """

    def __init__(self, paths: TlsPaths) -> None:
        self.paths = paths
        self._seen = self._signatures()
        self._material = _read(paths)
        self._lock = threading.Lock()

    @property
    def current(self) -> TlsMaterial:
        """What the files hold now; if that cannot be used, what they held before.

        It is the same object for as long as the files do not change.
        """
        with self._lock:
            return self._reread()

    def _reread(self) -> TlsMaterial:
        seen = self._signatures()
        if seen != self._seen:
            try:
                material = _read(self.paths)
            except InvalidTls as error:
                log.warning("tls.not_reloaded", extra={"why": str(error)})
            else:
                # Why compared again: a file may have been replaced between two that were read.
                if seen != self._signatures():
                    return self._material
                self._material = material
                log.info("tls.reloaded", extra={"certificate": str(self.paths.cert)})
            self._seen = seen
        return self._material

    def _signatures(self) -> tuple[_State | None, ...]:
        return tuple(map(_state, (self.paths.ca, self.paths.cert, self.paths.key)))

    @property
    def expires_s(self) -> float:
        """When the certificate in use expires, in seconds since 1970."""
        # Why here: the client of the mesh has no need of it, and does not install it.
        from cryptography.x509 import load_pem_x509_certificate

        return load_pem_x509_certificate(self.current.cert).not_valid_after_utc.timestamp()


class CurrentContext(ssl.SSLContext):
    """A context for clients that makes each connection with what the files hold then.

    Args:
        files: of which each handshake uses the current material.
        on_handshake: called before each.
    """

    _files: TlsFiles
    _on_handshake: Callable[[], None]

    def __new__(cls, files: TlsFiles, on_handshake: Callable[[], None]) -> CurrentContext:
        context = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        context._files, context._on_handshake = files, on_handshake
        return context

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        self._on_handshake()
        return self._files.current.context.wrap_bio(*arguments, **options)


class CurrentServerContext(ssl.SSLContext):
    """A context for servers that takes each connection with what the files hold then.

    Peers have to prove that the authority of the files has signed them.
    """

    _files: TlsFiles
    _made: tuple[TlsMaterial, ssl.SSLContext]

    def __new__(cls, files: TlsFiles) -> CurrentServerContext:
        context = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        context._files, context._made = files, _serving(files)
        return context

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        if self._files.current is not self._made[0]:
            # Between the replacement of one file and of the other they do not match.
            with suppress(OSError):
                self._made = _serving(self._files)
        return self._made[1].wrap_bio(*arguments, **options)


def _serving(files: TlsFiles) -> tuple[TlsMaterial, ssl.SSLContext]:
    material, context = files.current, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=material.ca.decode())
    context.load_cert_chain(files.paths.cert, files.paths.key)
    return material, context


def _state(file: Path) -> _State | None:
    """Return what tells one content of the file from the next; None: there is no file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(paths: TlsPaths) -> TlsMaterial:
    try:
        check_secret_file(paths.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    except InsecureSecretFile as error:
        raise InvalidTls(str(error)) from error
    try:
        context.load_verify_locations(paths.ca)
    except OSError as error:
        raise InvalidTls(f"{paths.ca} has no certificate of an authority: {error}") from error
    try:
        context.load_cert_chain(paths.cert, paths.key)
        return TlsMaterial(
            paths.ca.read_bytes(), paths.cert.read_bytes(), paths.key.read_bytes(), context
        )
    except OSError as error:
        # ssl.SSLError is one.
        raise InvalidTls(
            f"{paths.cert} and {paths.key} are no certificate with its key: {error}"
        ) from error
