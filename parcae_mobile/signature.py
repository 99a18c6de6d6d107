"""An optional signature of a folder: Ed25519 over the bytes of its manifest, which lists every file with its checksum.

An artifact's is `manifest.sig` over `manifest.json`, a bundled model's `app.sig` over the `app.json` that apps read.

    sign(folder, read_private_key(Path("key.pem")))
    check_signature(folder, read_public_key(Path("key.pub.pem")))

Keys are PEM files as OpenSSL makes them, and the signature is the 64 bytes that OpenSSL verifies too:

    openssl genpkey -algorithm ed25519 -out key.pem && openssl pkey -in key.pem -pubout -out key.pub.pem
    openssl pkeyutl -verify -pubin -inkey key.pub.pem -rawin -in manifest.json -sigfile manifest.sig
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .app_manifest import APP_MANIFEST, APP_SIGNATURE, MOST_APP_MANIFEST
from .atomic import writing
from .errors import InputError, SignatureError, ToolMissingError
from .given_file import MOST_BYTES, read_bytes
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


def pinned(key: Ed25519PrivateKey | Ed25519PublicKey) -> str:
    """The public key as apps pin it: its 32 bytes in hexadecimal."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    return public.public_bytes_raw().hex()


def is_bundled(folder: Path) -> bool:
    """Whether a folder is a model as apps bundle it, and no artifact."""
    return (folder / APP_MANIFEST).is_file()


def sign(folder: Path, key: Ed25519PrivateKey) -> Path:
    """Write the signature of a folder's manifest beside it; returns its path."""
    manifest, path, most = _signed(folder)
    signature = key.sign(read_bytes(manifest, InputError, most))
    with writing(path) as file:
        file.write(signature)
    return path


def check_signature(folder: Path, key: Ed25519PublicKey) -> None:
    """Raise `SignatureError` unless the manifest bears this key's signature."""
    from cryptography.exceptions import InvalidSignature

    manifest, path, most = _signed(folder)
    if not path.exists():
        raise SignatureError(f"{folder} has no {path.name}; it was not signed, or the signature was left behind")
    signature = read_bytes(path, SignatureError, SIGNATURE_BYTES + 1)
    try:
        key.verify(signature, read_bytes(manifest, SignatureError, most))
    except InvalidSignature:
        raise SignatureError(f"{folder}: the manifest does not bear this key's signature; do not use it") from None


def _signed(folder: Path) -> tuple[Path, Path, int]:
    """The manifest that a signature is over, where the signature lies, and the most bytes that the first may have."""
    if is_bundled(folder):
        return folder / APP_MANIFEST, folder / APP_SIGNATURE, MOST_APP_MANIFEST
    return folder / MANIFEST, folder / SIGNATURE, MOST_BYTES


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
