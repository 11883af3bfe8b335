"""Omniglot: 1623 handwritten characters of 50 alphabets, 20 drawings each."""

from PIL import ImageOps

from mmaml_tf.datasets.archives import open_tree
from mmaml_tf.datasets.dataset import Contents, ImageDataset, Needed
from mmaml_tf.datasets.errors import DatasetError

_SITE = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"


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
            for half, md5 in (
                ("images_background", "68d2efa1b9178cc56df9314c21c6e718"),
                ("images_evaluation", "6b91aef0f799c5bb55b94e3f2daec811"),
            )
        ),
    )

    def read(self, paths):
        """Lists the drawings of both halves."""
        trees, classes, members = [open_tree(path) for path in paths], {}, []
        for tree in trees:
            members.append({})
            for name in tree.names:
                if not name.endswith(".png"):
                    continue
                parts = name.split("/")
                if len(parts) < 3:
                    raise DatasetError(
                        f"{tree.path}: {name} is not in a folder Alphabet/characterNN."
                    )
                key = "/".join(parts[-3:])
                classes.setdefault("/".join(parts[-3:-1]), []).append(key)
                members[-1][name] = key

        def images():
            for tree, keys in zip(trees, members, strict=True):
                for name, content in tree.read(keys):
                    yield keys[name], content

        return Contents(classes, images)

    def adjust(self, image):
        """Inverts: strokes become 255, the background 0."""
        return ImageOps.invert(image)
