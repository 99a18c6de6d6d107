"""An optional signature of an artifact's manifest: Ed25519 over the bytes of `manifest.json`, which lists every file.

    sign(folder, read_private_key(Path("key.pem")))
    check_signature(folder, read_public_key(Path("key.pub.pem")))

Keys are PEM files as OpenSSL makes them, and the signature is the 64 bytes that OpenSSL verifies too:

    openssl genpkey -algorithm ed25519 -out key.pem && openssl pkey -in key.pem -pubout -out key.pub.pem
    openssl pkeyutl -verify -pubin -inkey key.pub.pem -rawin -in manifest.json -sigfile manifest.sig
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .atomic import writing
from .errors import InputError, SignatureError, ToolMissingError
from .given_file import read_bytes
from .manifest import MANIFEST, SIGNATURE

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE_BYTES, MOST_KEY = 64, 10_000


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """An Ed25519 key without a passphrase. Raises `InputError` for anything else."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = _key(path, private=True)
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{path}: no Ed25519 key; make one with openssl genpkey -algorithm ed25519")
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """An Ed25519 public key. Raises `InputError` for anything else."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = _key(path, private=False)
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"{path}: no Ed25519 public key; make one with openssl pkey -in KEY -pubout")
    return key


def sign(folder: Path, key: Ed25519PrivateKey) -> Path:
    """Write the signature of a folder's manifest beside it; returns its path."""
    signature = key.sign(read_bytes(folder / MANIFEST, InputError))
    with writing(folder / SIGNATURE) as file:
        file.write(signature)
    return folder / SIGNATURE


def check_signature(folder: Path, key: Ed25519PublicKey) -> None:
    """Raise `SignatureError` unless the manifest bears this key's signature."""
    from cryptography.exceptions import InvalidSignature

    path = folder / SIGNATURE
    if not path.exists():
        raise SignatureError(f"{folder} has no {SIGNATURE}; it was not signed, or the signature was left behind")
    signature = read_bytes(path, SignatureError, SIGNATURE_BYTES + 1)
    try:
        key.verify(signature, read_bytes(folder / MANIFEST, SignatureError))
    except InvalidSignature:
        raise SignatureError(f"{folder}: the manifest does not bear this key's signature; do not use it") from None


def _key(path: Path, private: bool) -> Any:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
    except ImportError:
        raise ToolMissingError("cryptography is not installed: pip install 'parcae-mobile[sign]'") from None
    data = read_bytes(path, InputError, MOST_KEY)
    try:
        return load_pem_private_key(data, None) if private else load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a passphrase
        raise InputError(f"{path}: no key in a PEM file without a passphrase; give the right file") from None
