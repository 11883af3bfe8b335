"""Omniglot (Lake et al. 2015): 1,623 characters of 50 alphabets, drawn 20 times each."""

from PIL import ImageOps

from mmaml_tf.datasets.archives import DatasetError, open_files
from mmaml_tf.datasets.dataset import Dataset, Listing, Part

_URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
_MD5 = {
    "images_background": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation": "6b91aef0f799c5bb55b94e3f2daec811",
}


class Omniglot(Dataset):
    """Reads `images_background.zip` and `images_evaluation.zip`, or their unpacked folders.

    A class is a character, "Alphabet/characterNN". Images are gray and inverted, strokes 255 on
    0, as the published protocol uses them.
    """

    name = "omniglot"
    title = "Omniglot"
    channels = 1
    layouts = (
        tuple(
            Part(
                (f"omniglot/{part}.zip", f"{part}.zip", f"omniglot/{part}", part),
                f"{_URL}{part}.zip",
                f"md5:{md5}",
            )
            for part, md5 in _MD5.items()
        ),
    )

    def listing(self, paths):
        """See `Dataset.listing`."""
        sources, images = [], []
        for path in paths:
            files = open_files(path)
            names, _ = files.scan(lambda name: False)
            names = [name for name in names if name.endswith(".png")]
            if not names or any(name.count("/") < 2 for name in names):
                raise DatasetError(f"{path} has no images Alphabet/characterNN/image.png.")
            sources.append((files, names))
            images += [("/".join(name.split("/")[-3:-1]), name) for name in names]
        return Listing(
            images, lambda: (item for files, names in sources for item in files.read(names))
        )

    def adjust(self, image):
        """Inverts a drawing."""
        return ImageOps.invert(image)
