"""`classify`: one task of images, from folders to CSV."""

import csv
import sys
from pathlib import Path

import numpy as np

from mmaml_tf.command_line.errors import InputError
from mmaml_tf.command_line.exported import load


def add_arguments(parser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("model", help="SavedModel directory written by learner.export()")
    parser.add_argument(
        "--support",
        required=True,
        metavar="FOLDER",
        help="a folder of class folders with a few images each; their names are the labels",
    )
    parser.add_argument("--query", required=True, metavar="FOLDER", help="a folder of images")
    parser.add_argument(
        "--all", action="store_true", help="add a column for each class with its probability"
    )
    parser.add_argument(
        "--invert",
        action="store_true",
        help="invert all images: for dark drawings on white and a model trained on Omniglot, "
        "whose strokes are white",
    )


def run(arguments) -> None:
    """Runs the command.

    Raises:
        InputError: if it cannot be done.
    """
    classes = _class_folders(arguments.support)
    queries = _images(arguments.query)
    if not queries:
        raise InputError(f"{arguments.query} has no images ({_suffixes()}).")
    model = load(arguments.model)
    size, channels = _image_shape(model)
    if len(classes) > model.outputs:
        raise InputError(
            f"{arguments.support} has {len(classes)} class folders, the model tells at most "
            f"{model.outputs} classes apart."
        )
    support = [(path, label) for label, paths in enumerate(classes.values()) for path in paths]
    support_x = _pixels([path for path, _ in support], size, channels, arguments.invert)
    support_y = np.array([label for _, label in support], np.int32)
    query_x = _pixels(queries, size, channels, arguments.invert)
    # A model for more classes may leave some probability to those that this task does not have.
    probabilities = model.predict(support_x, support_y, query_x)[:, : len(classes)]
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    if not np.isfinite(probabilities).all():
        raise InputError(f"{model.path} gives probabilities that are no numbers for these images.")
    names = list(classes)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["file", "label", "probability", *(names if arguments.all else [])])
    for path, row in zip(queries, probabilities, strict=True):
        shown = [f"{p:.6f}" for p in row] if arguments.all else []
        writer.writerow([path.name, names[row.argmax()], f"{row.max():.6f}", *shown])


def _class_folders(folder):
    """Returns the images of each class folder, by its name."""
    loose = _images(folder)
    if loose:
        raise InputError(f"{loose[0]} is in no class folder; move it into one, or away.")
    folders = [path for path in _entries(folder) if path.is_dir()]
    if len(folders) < 2:
        raise InputError(
            f"{folder} has {len(folders)} class folders; expected at least 2, each with images of "
            "one class."
        )
    classes = {path.name: _images(path) for path in folders}
    for name, images in classes.items():
        if not images:
            raise InputError(f"{Path(folder) / name} has no images ({_suffixes()}).")
    return classes


def _images(folder):
    suffixes = _decoding().SUFFIXES
    return [path for path in _entries(folder) if path.suffix.lower() in suffixes]


def _entries(folder):
    """Returns what is in a folder, sorted by name, without what is hidden."""
    try:
        return sorted(path for path in Path(folder).iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder} is no folder that can be read: {error}") from None


def _suffixes():
    return ", ".join(_decoding().SUFFIXES)


def _image_shape(model):
    """Returns the size and the channels of the images that a model takes."""
    if not model.predicts_classes:
        raise InputError(
            f"{model.path} predicts numbers; classify takes a classifier. For numbers there is "
            "the command adapt."
        )
    shape = tuple(model.inputs["support_x"].shape[2:])
    if len(shape) != 3 or shape[0] != shape[1] or shape[2] not in (1, 3):
        raise InputError(
            f"{model.path} takes points of shape {shape}; classify takes a model of square "
            "images, gray or RGB: (size, size, 1 or 3)."
        )
    if "mode" in model.inputs:
        raise InputError(f"{model.path} needs to be told the mode, which classify cannot.")
    return shape[1:]


def _pixels(paths, size, channels, invert):
    """Returns images as the learner saw them in training, `[n, size, size, channels]`."""
    from PIL import ImageOps

    decoding = _decoding()
    adjust = {"adjust": ImageOps.invert} if invert else {}
    images = []
    for path in paths:
        try:
            images.append(decoding.decode(path.read_bytes(), size, channels, **adjust))
        except (OSError, decoding.DatasetError) as error:
            raise InputError(f"{path} cannot be read as an image: {error}") from None
    return np.stack(images).astype(np.float32) / np.float32(255)


def _decoding():
    """Returns the module that decodes images; only this command needs what it needs."""
    try:
        from mmaml_tf.datasets import decoding
    except ImportError as error:
        raise InputError(str(error)) from None
    return decoding
