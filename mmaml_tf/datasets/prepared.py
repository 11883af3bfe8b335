"""Images that were decoded and resized once, as one array on disk that is mapped, not loaded."""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmaml_tf.datasets.arguments import user_path
from mmaml_tf.datasets.errors import DatasetError

#: grows whenever the same sources give other files
FORMAT = 1


class PreparedImages(NamedTuple):
    """A prepared dataset; class c has the images from `offsets[c]` to `offsets[c + 1]`.

    Attributes:
        name: of the dataset.
        images: uint8 `[n, H, W, C]`, mapped read-only; C is 1 or 3.
        classes: names of the classes, sorted.
        offsets: int64 `[n_classes + 1]`.
        image_size: height and width.
        channels: 1 or 3.
        digest: hexadecimal digest of the classes and of every pixel.
        sha256: that of the pixels, see `verify`.
    """

    name: str
    images: np.memmap
    classes: tuple[str, ...]
    offsets: np.ndarray
    image_size: int
    channels: int
    digest: str
    sha256: str

    @classmethod
    def load(cls, directory, name: str, image_size: int) -> "PreparedImages":
        """Opens what `prepare` wrote; checks its shape, not all of its pixels.

        Raises:
            DatasetError: when it is not there, or does not fit its description.
        """
        array, description = paths(directory, name, image_size)
        again = f"Run prepare({name!r}, data_dir, {str(directory)!r}, {image_size})."
        if not (array.exists() and description.exists()):
            raise DatasetError(
                f"{name} is not prepared at {image_size} pixels: no {array}. {again}"
            )
        try:
            about = json.loads(description.read_text(encoding="utf-8"))
            if about["format"] != FORMAT:
                raise ValueError(f"format {about['format']}, {FORMAT} is read")
            counts = [count for _, count in about["classes"]]
            shape = (sum(counts), image_size, image_size, about["channels"])
            images = np.load(array, mmap_mode="r")
            if images.shape != shape or images.dtype != np.uint8:
                raise ValueError(f"{images.dtype} {images.shape} instead of uint8 {shape}")
            return cls(
                name,
                images,
                tuple(class_name for class_name, _ in about["classes"]),
                np.cumsum([0, *counts], dtype=np.int64),
                image_size,
                about["channels"],
                about["digest"],
                about["sha256"],
            )
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise DatasetError(
                f"{array} does not fit {description} ({type(error).__name__}: {error}): delete "
                f"both. {again}"
            ) from error

    def images_of(self, class_name: str) -> np.ndarray:
        """Returns the images of one class, `[n, H, W, C]`, without copying them.

        Raises:
            ValueError: when there is no such class.
        """
        if class_name not in self.classes:
            raise ValueError(
                f"class {class_name!r} is not among the {len(self.classes)} of {self.name}, "
                f"{', '.join(self.classes[:3])}, ..."
            )
        index = self.classes.index(class_name)
        return self.images[self.offsets[index] : self.offsets[index + 1]]

    def verify(self) -> None:
        """Checks every pixel.

        Raises:
            DatasetError: when one has changed since it was prepared.
        """
        if pixel_digest(self.images) != self.sha256:
            raise DatasetError(
                f"the pixels of {self.name} at {self.image_size} pixels have changed since they "
                "were prepared: delete the .npy and .json and run prepare again."
            )


def paths(directory, name: str, image_size: int) -> tuple[Path, Path]:
    """Returns where the array and its description lie."""
    directory, stem = user_path(directory, "directory"), f"{name}-{image_size}"
    return directory / f"{stem}.npy", directory / f"{stem}.json"


def pixel_digest(images: np.ndarray) -> str:
    """Returns the SHA-256 of an array's values."""
    digest = hashlib.sha256()
    for start in range(0, len(images), 256):
        digest.update(np.ascontiguousarray(images[start : start + 256]))
    return digest.hexdigest()
