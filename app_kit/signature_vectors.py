"""Signature vectors: an app that pins a key takes a manifest with that key's signature, and nothing else.

`manifest` is text whose UTF-8 bytes are signed, `signature` hexadecimal or null where there is none, `key` the 32 bytes
of an Ed25519 public key in hexadecimal. `valid` says what an app has to find.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from parcae_mobile.signature import pinned

from .files import Cases

OURS, OTHERS = (Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)) for number in (1, 2))
MANIFEST = '{\n "format": 1,\n "name": "na\u00efve",\n "files": {"weights.data": {"bytes": 3, "sha256": "00"}}\n}\n'
ORDER = 2**252 + 27742317777372353535851937790883648493  # of the group: S and S + ORDER would sign the same


def signature_vectors() -> Cases:
    """Good, altered, cut, forged and foreign signatures."""
    key, good = pinned(OURS), OURS.sign(MANIFEST.encode())
    foreign = OTHERS.sign(MANIFEST.encode())
    again = good[:32] + (int.from_bytes(good[32:], "little") + ORDER).to_bytes(32, "little")
    rows: list[tuple[str, str, bytes | None, str, bool]] = [
        ("this key's signature", MANIFEST, good, key, True),
        ("another key's, where that is pinned", MANIFEST, foreign, pinned(OTHERS), True),
        ("an empty manifest that was signed", "", OURS.sign(b""), key, True),
        ("another key's signature", MANIFEST, foreign, key, False),
        ("this key's signature where another is pinned", MANIFEST, good, pinned(OTHERS), False),
        ("no signature", MANIFEST, None, key, False),
        ("an empty signature", MANIFEST, b"", key, False),
        ("zeros", MANIFEST, bytes(64), key, False),
        ("one bit of the signature", MANIFEST, bytes([good[0] ^ 1]) + good[1:], key, False),
        ("one bit of its second half", MANIFEST, good[:40] + bytes([good[40] ^ 1]) + good[41:], key, False),
        ("its halves swapped", MANIFEST, good[32:] + good[:32], key, False),
        ("cut off", MANIFEST, good[:63], key, False),
        ("one byte too many", MANIFEST, good + b"\0", key, False),
        ("the same signature in its other form", MANIFEST, again, key, False),
        ("a manifest with another number", MANIFEST.replace('"bytes": 3', '"bytes": 4'), good, key, False),
        ("a manifest with a space at its end", MANIFEST + " ", good, key, False),
        ("a manifest with other ends of lines", MANIFEST.replace("\n", "\r\n"), good, key, False),
        ("a manifest with a composed letter apart", MANIFEST.replace("\u00ef", "i\u0308"), good, key, False),
    ]
    cases = [
        {"case": name, "manifest": text, "signature": None if signature is None else signature.hex()}
        | {"key": pin, "valid": valid}
        for name, text, signature, pin, valid in rows
    ]
    return {"cases": cases}
