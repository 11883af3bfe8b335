"""Telling what a file is by its first bytes, for errors about files that are something else."""

_KINDS = (
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard"),
    (b"PK\x03\x04", "a zip archive or an Office document"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"%PDF", "a PDF document"),
    (b"8BPS", "a Photoshop document"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
)
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_WORDS = 60


def describe(head: bytes) -> str:
    """Says what a file is whose first bytes, a few hundred, are `head`."""
    if not head:
        return "an empty file"
    for start, kind in _KINDS:
        if head.startswith(start):
            return kind
    if head[4:8] == b"ftyp":
        return "a HEIC image" if head[8:12] in _HEIC else "a video"
    # The last character may be cut.
    words = " ".join(head.decode(errors="replace").rstrip("\ufffd").split())
    if not words or not words.isprintable() or "\ufffd" in words:
        return f"a file that begins with the bytes {head[:8]!r}"
    kind = "an HTML page" if words.lower().startswith(("<!doctype", "<html")) else "a text"
    return f"{kind} that begins with {words[:_WORDS]!r}"
