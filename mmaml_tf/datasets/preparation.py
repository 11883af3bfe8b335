"""Preparing a dataset: every image is decoded and resized once and written to one array."""

import hashlib
import itertools
import json
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from mmaml_tf.arguments import whole_number
from mmaml_tf.datasets.arguments import user_path
from mmaml_tf.datasets.dataset import ImageDataset
from mmaml_tf.datasets.decoding import decode
from mmaml_tf.datasets.errors import DatasetError
from mmaml_tf.datasets.prepared import FORMAT, PreparedImages, paths, pixel_digest
from mmaml_tf.datasets.registry import data_directory, find
from mmaml_tf.datasets.sources import fingerprint, record

_LARGEST = 1024
_LISTED = 10
_CHUNK = 32


def prepare(
    dataset: str | ImageDataset,
    data_dir=None,
    output_dir="data/prepared",
    image_size: int = 84,
    *,
    download: bool = False,
    progress: bool = True,
) -> PreparedImages:
    """Writes `<name>-<size>.npy` and `<name>-<size>.json`, unless they are there already.

    They are made again when the sources have changed (see `sources.fingerprint`). Both appear
    only when they are complete, the description last.

    Args:
        dataset: name of a registered dataset, or a dataset.
        data_dir: where its files are; see `data_directory` for None.
        output_dir: where the prepared images go.
        image_size: height and width.
        download: whether files that are missing may be downloaded.
        progress: whether to show progress bars.

    Returns:
        The prepared images, mapped from disk.

    Raises:
        DatasetError: when files are missing, or images are missing or damaged, naming them.
    """
    dataset, data_dir = find(dataset), data_directory(data_dir)
    image_size = whole_number("image_size", image_size)
    if image_size > _LARGEST:
        raise ValueError(f"image_size={image_size}: at most {_LARGEST} pixels are possible.")
    output_dir = user_path(output_dir, "output_dir")
    with _explained(dataset):
        located = dataset.locate(data_dir)
        if not located and download:
            dataset.fetch(data_dir, progress)
            located = dataset.locate(data_dir)
        if not located:
            raise DatasetError(dataset.missing(data_dir))
        sources = fingerprint(located)
        array, description = paths(output_dir, dataset.name, image_size)
        if _is_current(description, dataset, sources):
            try:
                return PreparedImages.load(output_dir, dataset.name, image_size)
            except DatasetError:
                pass  # made again below
        output_dir.mkdir(parents=True, exist_ok=True)
        with _alone(array.with_name(f"{array.name}.partial")) as partial:
            classes, sha256 = _write(dataset, located, partial, image_size, progress)
            about = {
                "format": FORMAT,
                "code": _code(),
                "dataset": dataset.name,
                "image_size": image_size,
                "channels": dataset.channels,
                "digest": _digest(dataset, image_size, classes, sha256),
                "sha256": sha256,
                "sources": {"fingerprint": sources, "files": record(dataset, located)},
                "classes": classes,
            }
            _publish(partial, array, description, about)
        return PreparedImages.load(output_dir, dataset.name, image_size)


@contextmanager
def _explained(dataset):
    """Turns errors of the file system, such as a full disk, into errors of the dataset."""
    try:
        yield
    except OSError as error:
        raise DatasetError(f"{dataset.name} cannot be prepared: {error}.") from error


def _is_current(description, dataset, sources):
    try:
        about = json.loads(description.read_text(encoding="utf-8"))
        stored = (
            about["format"], about["code"], about["channels"], about["sources"]["fingerprint"]
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return stored == (FORMAT, _code(), dataset.channels, sources)


def _code():
    """Returns a digest of this package, which decides what pixels are prepared."""
    sha256 = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        sha256.update(path.read_bytes())
    return sha256.hexdigest()


@contextmanager
def _alone(partial):
    """Lets one process at a time write a file, and removes it after an error."""
    lock = FileLock(partial.with_name(f"{partial.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise DatasetError(
            f"{partial} is being written by another process: wait until it has finished."
        ) from error
    try:
        yield partial
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        # While it is held: who waits for a lock that is gone makes a new one.
        with suppress(OSError):  # Windows removes no file that is open
            os.unlink(lock.lock_file)
        lock.release()


def _write(dataset, located, partial, size, progress):
    """Writes the pixels; returns [class, count] of the classes in order, and their SHA-256."""
    contents = dataset.read(located)
    keys = {name: sorted(contents.classes[name]) for name in sorted(contents.classes)}
    order = [key for name in keys for key in keys[name]]
    rows = {key: row for row, key in enumerate(order)}
    if not rows:
        raise DatasetError(f"{dataset.name}: no images in {', '.join(map(str, located))}.")
    if empty := [name for name in keys if not keys[name]]:
        raise DatasetError(
            f"{dataset.name}: no images are listed for {', '.join(empty[:_LISTED])}."
        )
    if len(rows) < len(order):
        twice = next(key for row, key in enumerate(order) if rows[key] != row)
        raise DatasetError(f"{dataset.name}: image {twice} is listed twice.")
    _check_counts(dataset, contents, located)

    shape = (len(rows), size, size, dataset.channels)
    images = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
    with open(partial, "r+b") as file:
        # A full disk is an error here; while writing to a map it would kill the process.
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    problems = []
    decoded = _decode_all(iter(contents.images()), size, dataset)
    for key, image in _bar(decoded, len(rows), f"{dataset.name} {size}px", progress):
        row = rows.pop(key, None)
        if row is None:
            problems.append(f"{key}: is there twice, or not listed")
        elif isinstance(image, DatasetError):
            problems.append(f"{key}: {image}")
        else:
            images[row] = image
        if len(problems) == _LISTED:
            raise _unusable(dataset, problems)
    problems += [f"{key}: is not there" for key in itertools.islice(rows, _LISTED)]
    if problems:
        raise _unusable(dataset, problems)
    images.flush()
    return [[name, len(keys[name])] for name in keys], pixel_digest(images)


def _check_counts(dataset, contents, located):
    """Raises an error unless the dataset holds what it is known to hold."""
    for part, classes, images in dataset.counts:
        names = contents.parts[part] if contents.parts else contents.classes
        sizes = [len(contents.classes[name]) for name in names]
        if images is None:
            complete, expected = len(set(sizes)) <= 1, "as many images of each"
        else:
            complete, expected = sum(sizes) == images, f"{images} images"
        if len(sizes) != classes or not complete:
            raise DatasetError(
                f"{dataset.name}: {part} has {len(sizes)} classes and {sum(sizes)} images, "
                f"{classes} classes and {expected} are expected. Get these files "
                f"again: {', '.join(map(str, located))}."
            )


def _unusable(dataset, problems):
    more = " (and perhaps more)" if len(problems) >= _LISTED else ""
    lines = "\n  ".join(problems[:_LISTED])
    return DatasetError(
        f"{dataset.name}: these images{more} cannot be used; get the dataset again, or repair "
        f"them:\n  {lines}"
    )


def _decode_all(images, size, dataset):
    """Decodes with one thread a processor, and yields in the order of `images`."""

    def decode_chunk(chunk):
        return [(key, decode_one(image)) for key, image in chunk]

    def decode_one(image):
        if isinstance(image, DatasetError):
            return image
        try:
            return decode(image, size, dataset.channels, dataset.adjust)
        except DatasetError as error:
            return error

    workers = os.cpu_count() or 1
    pending = deque()
    with ThreadPoolExecutor(workers) as pool:
        while chunk := list(itertools.islice(images, _CHUNK)):
            pending.append(pool.submit(decode_chunk, chunk))
            # What was read ahead is bounded.
            if len(pending) > 2 * workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


def _bar(iterable, total, label, progress):
    from tqdm import tqdm

    return tqdm(iterable, total=total, desc=label, unit="image", disable=not progress)


def _digest(dataset, size, classes, sha256):
    text = json.dumps([dataset.name, size, dataset.channels, classes, sha256])
    return hashlib.sha256(text.encode()).hexdigest()


def _publish(partial, array, description, about):
    # The description is what makes an array valid: the old one goes first, the new one last.
    description.unlink(missing_ok=True)
    _sync(partial)
    os.replace(partial, array)
    partial = description.with_name(f"{description.name}.partial")
    partial.write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")
    _sync(partial)
    os.replace(partial, description)
    _sync(description.parent)


def _sync(path):
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
