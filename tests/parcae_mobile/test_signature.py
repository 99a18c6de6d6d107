"""Signatures of manifests: this key's are accepted, everything else is refused in one line; OpenSSL agrees."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from parcae_mobile.errors import InputError, SignatureError
from parcae_mobile.manifest import MANIFEST, SIGNATURE, verify_files
from parcae_mobile.signature import check_signature, read_private_key, read_public_key, sign
from tests.attacks.manifests import artifact


def keys(folder: Path, name: str = "key") -> tuple[Path, Path]:
    """A private and a public key file."""
    key, private, public = ed25519.Ed25519PrivateKey.generate(), folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, Path]:
    """A signed artifact folder and the public key."""
    (tmp_path / "artifact").mkdir()
    private, public = keys(tmp_path)
    sign(artifact(tmp_path / "artifact"), read_private_key(private))
    return tmp_path / "artifact", public


def test_a_signed_folder_verifies_and_stays_closed(signed: tuple[Path, Path]) -> None:
    folder, public = signed
    check_signature(folder, read_public_key(public))
    assert SIGNATURE not in verify_files(folder).files


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / SIGNATURE).unlink(),
        lambda folder: (folder / SIGNATURE).write_bytes(b""),
        lambda folder: (folder / SIGNATURE).write_bytes(bytes(64)),
        lambda folder: (folder / SIGNATURE).write_bytes(bytes(1000)),
        lambda folder: (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes() + b" "),
    ],
)
def test_an_altered_manifest_or_signature_is_refused(
    signed: tuple[Path, Path], change: Callable[[Path], object]
) -> None:
    folder, public = signed
    change(folder)
    with pytest.raises(SignatureError) as caught:
        check_signature(folder, read_public_key(public))
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)


def test_another_key_is_refused(signed: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match="does not bear this key's signature"):
        check_signature(signed[0], read_public_key(keys(tmp_path, "other")[1]))


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", b"x" * 99])
def test_a_file_that_is_no_key_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(content)
    for read in (read_private_key, read_public_key):
        with pytest.raises(InputError, match="no key in a PEM file"):
            read(tmp_path / "key")


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    with pytest.raises(InputError, match="no Ed25519 key"):
        read_private_key(tmp_path / "key")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_verifies_the_same_signature(signed: tuple[Path, Path]) -> None:
    folder, public = signed
    line = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", folder / MANIFEST]
    done = subprocess.run([*line, "-sigfile", folder / SIGNATURE], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "Success" in done.stdout, done.stderr
