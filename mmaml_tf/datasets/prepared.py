"""Prepared images: decoded once, resized, and kept as one array of bytes per dataset and size."""

import hashlib
import io
import itertools
import json
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from mmaml_tf.datasets.archives import DatasetError
from mmaml_tf.datasets.dataset import Dataset, sources_digest
from mmaml_tf.datasets.downloads import file_digest

_FORMAT = 1
_CHUNK = 512
_MOST_ERRORS_SHOWN = 10
_FILE_TYPES = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM")


class PreparedImages(NamedTuple):
    """The images of a dataset at one size.

    Attributes:
        name: name of the dataset.
        images: `[n, H, W, C]` bytes, C 1 or 3, memory-mapped; those of a class are together.
        classes: names of the classes, sorted.
        offsets: `[classes + 1]` where the images of each class begin, and where the last end.
        image_size: height and width.
        channels: 3, or 1 for gray images.
        digest: SHA-256 of the array.
        sources: digest of the files it was made from.
    """

    name: str
    images: np.ndarray
    classes: tuple[str, ...]
    offsets: np.ndarray
    image_size: int
    channels: int
    digest: str
    sources: str

    @classmethod
    def load(cls, directory, name: str, image_size: int) -> "PreparedImages":
        """Opens what `prepare` wrote.

        Raises:
            DatasetError: when it is missing or incomplete.
        """
        array, manifest = _paths(Path(directory), name, image_size)
        if not manifest.is_file():
            raise DatasetError(
                f"{manifest} is missing; make it with mmaml_tf.datasets.prepare({name!r}, ...)."
            )
        description = json.loads(manifest.read_text())
        try:
            images = np.load(array, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise DatasetError(f"{array} cannot be read ({error}); prepare it again.") from None
        counts = list(description["classes"].values())
        shape = (sum(counts), image_size, image_size, description["channels"])
        if images.shape != shape or images.dtype != np.uint8:
            raise DatasetError(
                f"{array} is {images.dtype} {images.shape}, {manifest} says bytes {shape}; "
                "delete both and prepare them again."
            )
        return cls(
            name,
            images,
            classes=tuple(description["classes"]),
            offsets=np.cumsum([0, *counts]),
            image_size=image_size,
            channels=description["channels"],
            digest=description["sha256"],
            sources=description["sources"],
        )

    def verify(self) -> None:
        """Raises DatasetError unless the array's contents are those that were prepared."""
        found = hashlib.sha256(np.ascontiguousarray(self.images)).hexdigest()
        if found != self.digest:
            raise DatasetError(
                f"{self.name}: the prepared images were altered; prepare them again."
            )


def prepare(
    dataset: Dataset,
    data_directory,
    output_directory,
    image_size: int,
    *,
    download: bool = False,
    progress: bool = True,
) -> PreparedImages:
    """Decodes, resizes (LANCZOS) and stores a dataset; does nothing if that was done.

    Args:
        dataset: the loader.
        data_directory: where the official distribution is, or is downloaded to.
        output_directory: where `<name>-<size>.npy` and `.json` go, complete or not at all.
        image_size: height and width of the stored images.
        download: whether missing files may be downloaded.
        progress: whether to show a bar.

    Returns:
        The prepared images.

    Raises:
        DatasetError: when files are missing or damaged; images that cannot be decoded are named.
        ValueError: for a size that is not positive.
    """
    if image_size < 1:
        raise ValueError(f"image_size={image_size}: expected a positive number of pixels.")
    data_directory, output_directory = Path(data_directory), Path(output_directory)
    paths = dataset.locate(data_directory)
    if paths is None:
        if not download:
            raise DatasetError(dataset.missing(data_directory))
        paths = dataset.fetch(data_directory, progress)
    sources = sources_digest(paths)
    array, manifest = _paths(output_directory, dataset.name, image_size)
    if manifest.is_file() and array.is_file():
        if json.loads(manifest.read_text()).get("sources") == sources:
            return PreparedImages.load(output_directory, dataset.name, image_size)
        manifest.unlink()
    output_directory.mkdir(parents=True, exist_ok=True)
    listing = dataset.listing(paths)
    order = sorted(set(listing.images))
    if len(order) < len(listing.images):
        raise DatasetError(f"{dataset.title}: {paths[0]} lists an image twice.")
    partial = array.with_name(f".partial-{array.name}")
    shape = (len(order), image_size, image_size, dataset.channels)
    stored = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
    try:
        _store(dataset, listing, order, stored, image_size, progress)
    except BaseException:
        partial.unlink()
        raise
    stored.flush()
    counts = {name: len(list(group)) for name, group in itertools.groupby(c for c, _ in order)}
    description = {
        "format": _FORMAT,
        "dataset": dataset.name,
        "image_size": image_size,
        "channels": dataset.channels,
        "sources": sources,
        "files": {p.name: file_digest(p) for p in paths if p.is_file()},
        "sha256": hashlib.sha256(stored).hexdigest(),
        "classes": counts,
    }
    del stored
    os.replace(partial, array)
    partial = manifest.with_name(f".partial-{manifest.name}")
    partial.write_text(json.dumps(description, indent=1) + "\n")
    os.replace(partial, manifest)
    return PreparedImages.load(output_directory, dataset.name, image_size)


def _store(dataset, listing, order, stored, image_size, progress):
    """Fills the rows of `stored` in the order of `order`."""
    rows = {key: row for row, (_, key) in enumerate(order)}
    size = (image_size, image_size)
    errors = []

    def work(item):
        key, content = item
        try:
            image = _decode(content, dataset.channels)
            image = dataset.adjust(image)
            if image.size != size:
                image = image.resize(size, Image.Resampling.LANCZOS)
            stored[rows[key]] = np.asarray(image).reshape(*size, dataset.channels)
        # Pillow raises many kinds for damaged files.
        except Exception as error:
            errors.append(f"{key}: {error}")
        return key

    done = set()
    workers = len(os.sched_getaffinity(0))
    bar = tqdm(total=len(order), desc=dataset.name, unit="image", disable=not progress)
    with bar, ThreadPoolExecutor(workers) as pool:
        items = listing.read()
        # By the chunk, so that what is read but not yet decoded stays small.
        while chunk := list(itertools.islice(items, _CHUNK)):
            done.update(pool.map(work, chunk))
            bar.update(len(chunk))
    errors += [f"{key}: is missing" for key in rows if key not in done]
    if errors:
        shown = "\n  ".join(sorted(errors)[:_MOST_ERRORS_SHOWN])
        raise DatasetError(
            f"{dataset.title}: {len(errors)} of {len(order)} images cannot be used:\n  {shown}\n"
            "Get the files again from their publisher."
        )


def _decode(content, channels):
    mode = "L" if channels == 1 else "RGB"
    if isinstance(content, np.ndarray):
        return Image.fromarray(np.ascontiguousarray(content)).convert(mode)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(content), formats=_FILE_TYPES) as image:
            return image.convert(mode)


def _paths(directory, name, image_size):
    stem = f"{name}-{image_size}"
    return directory / f"{stem}.npy", directory / f"{stem}.json"
