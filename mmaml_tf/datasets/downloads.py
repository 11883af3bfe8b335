"""Downloads that go on where they were cut off, and appear under their name only when checked."""

import hashlib
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from mmaml_tf.datasets.archives import DatasetError

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 30


def download(
    url: str, path: Path, checksum: str, progress: bool = True, attempts: int = 5, pause: float = 2
) -> None:
    """Downloads a file; one that is there already is left alone.

    Args:
        url: where from.
        path: where to; `<path>.part` holds what has come so far.
        checksum: "md5:..." or "sha256:...", as published.
        progress: whether to show a bar.
        attempts: how often a broken transfer is taken up again.
        pause: seconds before the second attempt; longer before later ones.

    Raises:
        DatasetError: if the server has no such file, the transfer keeps breaking, or the file
            is not the published one.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    for attempt in range(attempts):
        try:
            _fetch(url, part, progress)
            break
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise DatasetError(f"{url}: {error}. Put the file to {path} by hand.") from error
            failure = error
        except OSError as error:  # URLError, time-outs and broken connections
            failure = error
        if attempt == attempts - 1:
            raise DatasetError(
                f"{url} keeps breaking off ({failure}); {part} holds what has come. Run the same "
                f"command again, or put the file to {path} by hand."
            ) from failure
        time.sleep(pause * 2**attempt)
    kind, _, expected = checksum.partition(":")
    found = file_digest(part, kind)
    if found != expected:
        part.unlink()
        raise DatasetError(
            f"{url} gave a file whose {kind} is {found}; published is {expected}. It was removed."
        )
    os.replace(part, path)


def _fetch(url, part, progress):
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if done and error.code == 416:  # nothing is left to fetch
            return
        raise
    with response:
        resumed = response.status == 206
        done = done if resumed else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        with (
            open(part, "ab" if resumed else "wb") as file,
            tqdm(total=total, initial=done, unit="B", unit_scale=True, disable=not progress) as bar,
        ):
            bar.set_description(part.stem)
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                bar.update(len(chunk))
        if total is not None and done < total:
            raise OSError(f"{done} of {total} bytes came")


def file_digest(path: Path, kind: str = "sha256") -> str:
    """Returns the hexadecimal digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
