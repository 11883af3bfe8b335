"""Downloads that resume and are checked before they appear under their name."""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from mmaml_tf.datasets.arguments import user_path
from mmaml_tf.datasets.errors import DatasetError

_CHUNK = 1 << 20


def download(
    url: str,
    path,
    *,
    md5: str = "",
    sha256: str = "",
    progress: bool = True,
    attempts: int = 4,
    pause: float = 2.0,
    timeout: float = 60.0,
) -> Path:
    """Downloads a file to `path` by way of `<path>.part`, which a later call resumes.

    Args:
        url: http or https address.
        path: where the complete and verified file goes.
        md5: published MD5, if that is what is published.
        sha256: published SHA-256.
        progress: whether to show a progress bar.
        attempts: how often to try in all.
        pause: seconds before the second attempt; doubled each time.
        timeout: seconds without data after which an attempt has failed.

    Raises:
        DatasetError: when the attempts are used up or the checksum differs; the part is kept in
            the first case and removed in the second.
    """
    path = user_path(path)
    if not url.startswith(("https://", "http://")):
        raise DatasetError(f"{url}: only http and https addresses are downloaded.")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    for attempt in range(1, attempts + 1):
        try:
            _transfer(url, part, progress, timeout)
            break
        except (OSError, EOFError, http.client.HTTPException) as error:
            if _is_final(error) or attempt == attempts:
                raise DatasetError(
                    f"{url} could not be downloaded in {attempt} attempt(s): {error}. Try again, "
                    f"which resumes, or get the file by other means and put it at {path}."
                ) from error
            time.sleep(pause * 2 ** (attempt - 1))
    _verify(url, part, md5, sha256)
    with open(part, "r+b") as file:  # Windows syncs no file that is open for reading only
        os.fsync(file.fileno())
    os.replace(part, path)
    return path


def file_digest(path, algorithm: str = "sha256") -> str:
    """Returns the hexadecimal digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _transfer(url, part, progress, timeout):
    """Fetches what the part lacks; EOFError when the connection ends too early."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={start}-"} if start else {}
    request = urllib.request.Request(url, headers={"User-Agent": "mmaml_tf"} | headers)
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        # 416: there is nothing after the part; it is complete, or of another file.
        if error.code == 416 and start:
            return
        raise
    with response:
        # A server may answer a range with the whole file, or another range than was asked for.
        answered = response.headers.get("Content-Range", "")
        resumed = response.status == 206 and answered.startswith(f"bytes {start}-")
        if response.status == 206 and not resumed:
            part.unlink()
            raise EOFError(f"the server sent another range than asked for ({answered})")
        length = response.headers.get("Content-Length")
        start = start if resumed else 0
        total = start + int(length) if length else None
        with open(part, "ab" if resumed else "wb") as file, _bar(part, total, progress) as bar:
            bar.update(start)
            received = start
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                received += len(chunk)
                bar.update(len(chunk))
        if total is not None and received < total:
            raise EOFError(f"the connection ended after {received:,} of {total:,} bytes")


def _bar(part, total, progress):
    from tqdm import tqdm

    name = part.name.removesuffix(".part")
    return tqdm(total=total, unit="B", unit_scale=True, desc=name, disable=not progress)


def _is_final(error):
    """Tells whether trying again is pointless: the server has refused."""
    return isinstance(error, urllib.error.HTTPError) and error.code in (401, 403, 404, 410)


def _verify(url, part, md5, sha256):
    for algorithm, expected in (("sha256", sha256), ("md5", md5)):
        if expected and (found := file_digest(part, algorithm)) != expected.lower():
            part.unlink()
            raise DatasetError(
                f"{url}: the download has {algorithm} {found}, {expected} is published. It was "
                "removed. Try again; if that fails again, the file at that address was changed."
            )
