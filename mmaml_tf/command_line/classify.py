"""`classify`: one task of images, from folders to CSV."""

import numpy as np

from mmaml_tf.command_line.errors import InputError
from mmaml_tf.command_line.exported import load
from mmaml_tf.command_line.output import note, write_table


def add_arguments(parser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("model", help="SavedModel directory written by learner.export()")
    parser.add_argument(
        "--support",
        required=True,
        metavar="FOLDER",
        help="a folder of class folders with a few images each; their names are the labels",
    )
    parser.add_argument(
        "--query", required=True, metavar="FOLDER", help="a folder of images, at any depth"
    )
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
    try:
        from mmaml_tf.datasets import DatasetError
    except ImportError as error:  # only this command needs the extra
        raise InputError(str(error)) from None
    try:
        _run(arguments)
    except DatasetError as error:
        raise InputError(str(error)) from None


def _run(arguments):
    from mmaml_tf.datasets.image_files import by_class, list_images

    support, queries = list_images(arguments.support), list_images(arguments.query)
    classes = by_class(support)
    if len(classes) < 2:
        raise InputError(
            f"{arguments.support} has {len(classes)} class folders; expected at least 2, each "
            "with images of one class."
        )
    if not queries.names:
        raise InputError(f"{arguments.query} has no images (.jpg, .png and the like).")
    model = load(arguments.model)
    size, channels = _image_shape(model)
    if len(classes) > model.outputs:
        raise InputError(
            f"{arguments.support} has {len(classes)} class folders, the model tells at most "
            f"{model.outputs} classes apart."
        )
    labels = {name: label for label, names in enumerate(classes.values()) for name in names}
    probabilities = model.predict(
        support_x=_pixels(support.tree, list(labels), size, channels, arguments.invert),
        support_y=list(labels.values()),
        query_x=_pixels(queries.tree, queries.names, size, channels, arguments.invert),
    )
    # A model for more classes may leave some probability to those that this task does not have.
    probabilities = probabilities[:, : len(classes)]
    with np.errstate(invalid="ignore"):
        probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    if not np.isfinite(probabilities).all():
        raise InputError(f"{model.path} gives probabilities that are no numbers for these images.")
    names, rows = list(classes), []
    for file, row in zip(queries.names, probabilities, strict=True):
        shown = [f"{p:.6f}" for p in row] if arguments.all else []
        rows.append([file, names[row.argmax()], f"{row.max():.6f}", *shown])
    for files in (support, queries):
        if message := files.left_out():
            note(message)
    write_table(["file", "label", "probability", *(names if arguments.all else [])], rows)


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


def _pixels(tree, names, size, channels, invert):
    """Returns images as the learner saw them in training, `[n, size, size, channels]`."""
    from PIL import ImageOps

    from mmaml_tf.datasets import DatasetError
    from mmaml_tf.datasets.decoding import decode

    adjust = {"adjust": ImageOps.invert} if invert else {}
    images = {}
    for name, content in tree.read(names):
        try:
            if isinstance(content, DatasetError):
                raise content
            images[name] = decode(content, size, channels, **adjust)
        except DatasetError as error:
            raise InputError(f"{tree.path}/{name} cannot be read as an image: {error}") from None
    return np.stack([images[name] for name in names]).astype(np.float32) / np.float32(255)
