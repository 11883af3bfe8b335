"""mini-ImageNet: 100 classes of 600 images, in either of the forms in which it is passed on."""

import csv

from mmaml_tf.datasets.archives import open_tree
from mmaml_tf.datasets.dataset import Contents, Counts, ImageDataset, Needed
from mmaml_tf.datasets.errors import DatasetError
from mmaml_tf.datasets.pickles import load_pickle, named, text

_PARTS = ("train", "val", "test")
_IMAGES = ("images", "images.zip", "images.tar.gz", "images.tar")


class MiniImageNet(ImageDataset):
    """The images of the three parts as one dataset; a class is a WordNet id.

    Files: `train.csv`, `val.csv` and `test.csv` of Ravi and Larochelle with the folder (or
    archive) `images`; or the cached `mini-imagenet-cache-{train,val,test}.pkl`.
    """

    name = "mini_imagenet"
    folders = ("mini-imagenet", "mini_imagenet", "miniimagenet", ".")
    layouts = (
        (*(Needed((f"{part}.csv",)) for part in _PARTS), Needed(_IMAGES)),
        tuple(Needed((f"mini-imagenet-cache-{part}.pkl",)) for part in _PARTS),
    )
    # As published there are 600 images of each class; fewer are passed on too.
    counts = tuple(Counts(part, n, None) for part, n in zip(_PARTS, (64, 16, 20), strict=True))
    terms = "ImageNet's terms of access do not allow this package to download it."

    def read(self, paths):
        """Lists the images of the three parts, which together are the dataset."""
        return _pickled(paths) if len(paths) == 3 else _listed(*paths)


def _listed(*paths):
    *lists, folder = paths
    classes, parts = {}, {part: set() for part in _PARTS}
    for part, path in zip(_PARTS, lists, strict=True):
        for filename, label in _rows(path):
            classes.setdefault(label, []).append(filename)
            parts[part].add(label)
    tree = open_tree(folder)
    wanted = {name for names in classes.values() for name in names}
    members = {name: name.split("/")[-1] for name in tree.names if name.split("/")[-1] in wanted}

    def images():
        for name, content in tree.read(members):
            yield members[name], content

    return Contents(classes, images, parts)


def _rows(path):
    """Yields the file's name and the label of each image that a list names."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not {"filename", "label"} <= set(rows.fieldnames or ()):
                raise DatasetError(f"{path}: a first row with filename,label is expected.")
            for row in rows:
                if not row["filename"] or not row["label"]:
                    raise DatasetError(f"{path}, line {rows.line_num}: filename,label is expected.")
                yield row["filename"], row["label"]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is not a CSV file in UTF-8 ({error}).") from error


def _pickled(paths):
    # The arrays are read once more with the images, so that only one is in memory at a time.
    classes, parts = {}, {part: set() for part in _PARTS}
    for part, path in zip(_PARTS, paths, strict=True):
        pixels, rows = _cache(path)
        parts[part].update(rows)
        for name, indices in rows.items():
            if any(not 0 <= i < len(pixels) for i in indices):
                raise DatasetError(f"{path}: class {name} lists rows that are not there.")
            keys = classes.setdefault(name, [])
            keys.extend(f"{path.name}/{i:06d}" for i in indices)

    def images():
        for path in paths:
            pixels, rows = _cache(path)
            for i in sorted(i for indices in rows.values() for i in indices):
                yield f"{path.name}/{i:06d}", pixels[i]

    return Contents(classes, images, parts)


def _cache(path):
    with open(path, "rb") as file:
        content = load_pickle(file, str(path))
    pixels, rows = named(content, "image_data", "class_dict", name=str(path))
    shape, kind = getattr(pixels, "shape", ()), str(getattr(pixels, "dtype", ""))
    if len(shape) != 4 or shape[3] != 3 or kind != "uint8":
        raise DatasetError(
            f"{path}: image_data is {kind} {shape}, uint8 [n, 84, 84, 3] is expected."
        )
    try:
        return pixels, {text(name): [int(i) for i in rows[name]] for name in rows}
    except (TypeError, ValueError) as error:
        raise DatasetError(
            f"{path}: class_dict does not list the rows of each class ({error})."
        ) from error
