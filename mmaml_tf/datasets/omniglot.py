"""Omniglot: 1623 handwritten characters of 50 alphabets, 20 drawings each."""

from PIL import ImageOps

from mmaml_tf.datasets.archives import open_tree
from mmaml_tf.datasets.dataset import Contents, Counts, ImageDataset, Needed
from mmaml_tf.datasets.errors import DatasetError

_SITE = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
_HALVES = {
    "images_background": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation": "6b91aef0f799c5bb55b94e3f2daec811",
}


class Omniglot(ImageDataset):
    """Both halves as one dataset; a class is "Alphabet/characterNN".

    Files: `images_background.zip` and `images_evaluation.zip`, or these folders.
    """

    name = "omniglot"
    channels = 1
    folders = ("omniglot", ".")
    layouts = (
        tuple(
            Needed((f"{half}.zip", half), f"{_SITE}{half}.zip", md5)
            for half, md5 in _HALVES.items()
        ),
    )
    counts = (Counts("images_background", 964, 19280), Counts("images_evaluation", 659, 13180))

    def read(self, paths):
        """Lists the drawings of both halves."""
        trees, classes, members = [open_tree(path) for path in paths], {}, []
        parts = {half: set() for half in _HALVES}
        for half, tree in zip(_HALVES, trees, strict=True):
            members.append({})
            for name in tree.names:
                if not name.endswith(".png"):
                    continue
                folders = name.split("/")
                if len(folders) < 3:
                    raise DatasetError(
                        f"{tree.path}: {name} is not in a folder Alphabet/characterNN."
                    )
                key = "/".join(folders[-3:])
                character = "/".join(folders[-3:-1])
                classes.setdefault(character, []).append(key)
                parts[half].add(character)
                members[-1][name] = key

        def images():
            for tree, keys in zip(trees, members, strict=True):
                for name, content in tree.read(keys):
                    yield keys[name], content

        return Contents(classes, images, parts)

    def adjust(self, image):
        """Inverts: strokes become 255, the background 0."""
        return ImageOps.invert(image)
