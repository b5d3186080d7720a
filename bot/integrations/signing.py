"""Signs commits with an SSH key, in this process, as git does with `gpg.format=ssh`.

The format is OpenSSH's SSHSIG: the file PROTOCOL.sshsig of its sources describes it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

MAKE_ONE = "Make one: ssh-keygen -t ed25519 -N '' -C promote-bot -f signing-key"
SMALLEST_RSA = 1024
"""Bits; with fewer, ssh-keygen neither signs nor verifies."""

_MAGIC = b"SSHSIG"
_VERSION = (1).to_bytes(4, "big")
_NAMESPACE = b"git"
_RESERVED = b""
_HASH = b"sha512"
_LINE = 70
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"

_OPENSSH = b"BEGIN OPENSSH PRIVATE KEY"
_PUBLIC = re.compile(rb"\s*(?:ssh-|ecdsa-|sk-)|.*PUBLIC KEY", re.DOTALL)


class CommitSigner:
    """Signs commits with one key; equal commits get equal signatures, so their ids are equal as well."""

    def __init__(self, key: Ed25519PrivateKey | RSAPrivateKey) -> None:
        self._key = key
        self.public_key = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        """The public half as `ssh-ed25519 AAAA…`, for the git host and for `allowed_signers`."""
        self._public_blob = base64.b64decode(self.public_key.split()[1])

    @classmethod
    def load(cls, path: Path) -> CommitSigner:
        """The signer with the private key in a file, in OpenSSH's format or as PEM.

        Raises:
            ValueError: there is no key that can be used; the sentence says why, and what to do.
        """
        if "\n" in str(path):
            raise ValueError("The signing key must be the path of a file; it seems to be the key itself.")
        try:
            data = path.read_bytes()
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise ValueError(f"The signing key {path} cannot be read: {why}. {MAKE_ONE}") from error
        return cls(_private_key(data, path))

    def __repr__(self) -> str:
        return f"CommitSigner({self.fingerprint})"

    @property
    def fingerprint(self) -> str:
        """`SHA256:…`, as `ssh-keygen -l` prints it."""
        digest = base64.b64encode(hashlib.sha256(self._public_blob).digest()).decode()
        return f"SHA256:{digest.rstrip('=')}"

    def sign(self, commit: bytes) -> str:
        """The armored signature of a raw commit object that has none yet; it ends with a newline."""
        subject = _strings(_NAMESPACE, _RESERVED, _HASH)
        algorithm, signature = self._raw_signature(
            _MAGIC + subject + _strings(hashlib.sha512(commit).digest())
        )
        blob = _strings(self._public_blob) + subject + _strings(_strings(algorithm, signature))
        text = base64.b64encode(_MAGIC + _VERSION + blob).decode()
        lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
        return "\n".join([_BEGIN, *lines, _END, ""])

    def signed(self, commit: bytes) -> bytes:
        """The raw commit object with its signature, as git writes it: the last header is `gpgsig`."""
        headers, _, message = commit.partition(b"\n\n")
        signature = self.sign(commit).strip().replace("\n", "\n ")
        return headers + b"\ngpgsig " + signature.encode() + b"\n\n" + message

    def signed_tag(self, tag: bytes) -> bytes:
        """The raw tag object with its signature, as git writes it: at the end of its message."""
        return tag + self.sign(tag).encode()

    def _raw_signature(self, data: bytes) -> tuple[bytes, bytes]:
        """The algorithm's name and what it makes of the data."""
        if isinstance(self._key, Ed25519PrivateKey):
            return b"ssh-ed25519", self._key.sign(data)
        return b"rsa-sha2-512", self._key.sign(data, PKCS1v15(), SHA512())


def _strings(*values: bytes) -> bytes:
    """Each value after its length, as SSH writes strings."""
    return b"".join(len(value).to_bytes(4, "big") + value for value in values)


def _private_key(data: bytes, path: Path) -> Ed25519PrivateKey | RSAPrivateKey:
    if _PUBLIC.match(data):
        raise ValueError(f"{path} holds a public key. Name the file of its private key, without “.pub”.")
    load = load_ssh_private_key if _OPENSSH in data else load_pem_private_key
    try:
        key = load(data, password=None)
    except TypeError as error:
        raise ValueError(f"The key in {path} has a passphrase; it must have none. {MAKE_ONE}") from error
    except (UnsupportedAlgorithm, NotImplementedError) as error:
        raise _unfit(path) from error
    except ValueError as error:
        raise ValueError(f"{path} holds no private key. {MAKE_ONE}") from error
    if isinstance(key, RSAPrivateKey) and key.key_size < SMALLEST_RSA:
        raise ValueError(f"The RSA key in {path} has only {key.key_size} bits. {MAKE_ONE}")
    if not isinstance(key, Ed25519PrivateKey | RSAPrivateKey):
        raise _unfit(path)
    return key


def _unfit(path: Path) -> ValueError:
    """A commit that is made again must get the same id, so the same commit must get the same signature."""
    return ValueError(
        f"The key in {path} is of a kind that cannot be used: "
        f"only Ed25519 and RSA sign alike each time. {MAKE_ONE}"
    )
