"""What an id token proves: a table of attacks."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

from headrace_control.base.records import Identity
from headrace_control.sign_in.identity import (
    Expected,
    UnknownKey,
    UntrustedToken,
    identity_of,
    is_email,
    signing_keys,
    verified_claims,
)
from helpers.openid_provider import SigningKey

ISSUER, CLIENT = "https://login.example.com", "headrace"
EXPECTED = Expected(ISSUER, CLIENT, "nonce-1")
RSA, EC = SigningKey("RS256"), SigningKey("ES256")
KEYS = signing_keys({"keys": [RSA.public, EC.public]})


def claims(**lies: Any) -> dict[str, Any]:
    now = int(time.time())
    true = {"iss": ISSUER, "aud": CLIENT, "sub": "s", "iat": now, "exp": now + 60}
    return {k: v for k, v in ({**true, "nonce": "nonce-1"} | lies).items() if v is not None}


@pytest.mark.parametrize("key", [RSA, EC], ids=["RS256", "ES256"])
def test_a_token_of_this_sign_in_is_believed(key: SigningKey) -> None:
    assert verified_claims(key.sign(claims()), KEYS, EXPECTED)["sub"] == "s"


@pytest.mark.parametrize(
    ("lies", "why"),
    [
        ({"iss": "https://evil.example"}, "issuer"),
        ({"iss": ISSUER + "/"}, "issuer"),
        ({"iss": None}, "iss"),
        ({"aud": "another"}, "Audience"),
        ({"aud": None}, "aud"),
        ({"aud": []}, "aud"),
        ({"aud": [CLIENT, "another"]}, "azp"),
        ({"aud": [CLIENT, "another"], "azp": "another"}, "azp"),
        ({"azp": "another"}, "azp"),
        ({"exp": int(time.time()) - 3600}, "expired"),
        ({"exp": None}, "exp"),
        ({"exp": "soon"}, "exp"),
        ({"iat": None}, "iat"),
        ({"iat": int(time.time()) + 3600}, "iat"),
        ({"nbf": int(time.time()) + 3600}, "nbf"),
        ({"nonce": "nonce-2"}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"nonce": ["nonce-1"]}, "nonce"),
        ({"nonce": "nonce-ü"}, "nonce"),
        ({"sub": None}, "sub"),
        ({"sub": ""}, "sub"),
        ({"sub": 7}, "[Ss]ub"),
        ({"sub": "s" * 256}, "sub"),
    ],
)
def test_a_claim_that_is_not_of_this_sign_in_is_refused(lies: dict[str, Any], why: str) -> None:
    with pytest.raises(UntrustedToken, match=why):
        verified_claims(RSA.sign(claims(**lies)), KEYS, EXPECTED)


def test_a_token_for_several_clients_is_believed_if_it_was_issued_to_this_one() -> None:
    token = RSA.sign(claims(aud=[CLIENT, "another"], azp=CLIENT))
    assert verified_claims(token, KEYS, EXPECTED)


def unsigned(header: dict[str, str], body: dict[str, Any], signature: str = "") -> str:
    parts = (json.dumps(part).encode() for part in (header, body))
    return (
        ".".join(base64.urlsafe_b64encode(p).rstrip(b"=").decode() for p in parts) + "." + signature
    )


def signed_with_public_key() -> str:
    pem = RSA.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = {"alg": "HS256", "kid": RSA.kid}
    start = unsigned(header, claims()).rstrip(".")
    signature = jwt.get_algorithm_by_name("HS256").sign(start.encode(), pem)
    return f"{start}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


STRANGER = SigningKey("RS256")
FORGED = {
    "no signature": unsigned({"alg": "none", "kid": RSA.kid}, claims()),
    "NoNe": unsigned({"alg": "NoNe", "kid": RSA.kid}, claims()),
    "no algorithm": unsigned({"kid": RSA.kid}, claims()),
    "empty signature": unsigned({"alg": "RS256", "kid": RSA.kid}, claims()),
    "a MAC by the public key": signed_with_public_key(),
    "a stranger's key": STRANGER.sign(claims(), kid=RSA.kid),
    "a key of its own": STRANGER.sign(claims(), kid=RSA.kid, jku="https://evil.example/keys"),
    "another algorithm's key": EC.sign(claims(), kid=RSA.kid),
    "another's signature": RSA.sign(claims()).rpartition(".")[0] + "." + EC.sign({}).split(".")[2],
    "no token": "x",
    "empty": "",
    "not base64": "ü.ü.ü",
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_token_is_refused(name: str) -> None:
    with pytest.raises(UntrustedToken):
        verified_claims(FORGED[name], KEYS, EXPECTED)


def test_an_unknown_key_is_told_apart_because_the_provider_may_have_a_new_one() -> None:
    with pytest.raises(UnknownKey):
        verified_claims(STRANGER.sign(claims()), KEYS, EXPECTED)


def test_only_keys_that_sign_are_taken() -> None:
    secret = {"kty": "oct", "kid": "m", "k": "c2VjcmV0", "alg": "HS256"}
    others = [secret, {**RSA.public, "use": "enc"}, {"kty": "RSA"}, {}, 7, None]
    assert signing_keys({"keys": others}) == ()
    assert signing_keys({"keys": "x"}) == signing_keys([]) == ()


def test_a_short_key_is_not_believed() -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    public = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = jwt.encode(claims(), private, "RS256")
    with pytest.raises(UntrustedToken, match="1024 bits"):
        verified_claims(token, signing_keys({"keys": [public]}), EXPECTED)


PERSON = {"iss": ISSUER, "sub": "s", "email": "ann@example.com", "name": "Ann"}


@pytest.mark.parametrize(
    ("verified", "trusted", "email"),
    [
        (True, False, "ann@example.com"),
        (False, False, ""),
        (False, True, ""),
        ("true", True, ""),
        (None, False, ""),
        (None, True, "ann@example.com"),
    ],
)
def test_only_a_verified_address_is_the_persons(verified: Any, trusted: bool, email: str) -> None:
    stated = {} if verified is None else {"email_verified": verified}
    identity = identity_of(PERSON | stated, trust_email=trusted)
    assert identity == Identity(ISSUER, "s", email, "Ann")


def test_a_name_has_nothing_that_terminals_obey() -> None:
    named = PERSON | {"name": "Ann\x1b[2J\r\n\u202e" + "x" * 300}
    assert identity_of(named, trust_email=False).display_name == "Ann[2J" + "x" * 249
    assert identity_of(PERSON | {"name": 7}, trust_email=False).display_name == ""


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("ann@example.com", True),
        ("ann+x@müller.example", True),
        ("", False),
        ("ann", False),
        ("@example.com", False),
        ("ann@", False),
        ("ann@evil.example@example.com", False),
        ("ann@example.com ", False),
        ("<ann@example.com>", False),
        ("ann@example.com\nbcc: x", False),
        ("a" * 250 + "@b.cc", False),
    ],
)
def test_an_address_has_one_sign_and_no_spaces(text: str, is_one: bool) -> None:
    assert is_email(text) is is_one
