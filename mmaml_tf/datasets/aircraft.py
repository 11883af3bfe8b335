"""FGVC-Aircraft 2013b (Maji et al. 2013): 100 variants of aircraft."""

from mmaml_tf.datasets.archives import DatasetError, open_files
from mmaml_tf.datasets.dataset import Dataset, Listing, Part, root_of

_BANNER = 20  # rows at the bottom of every photograph, with its author's name
_LISTS = ("trainval", "train", "val", "test")


class Aircraft(Dataset):
    """Reads `fgvc-aircraft-2013b.tar.gz` or its folder; the banner is cut off.

    A class is a variant's name as published, slashes included ("F/A-18").
    """

    name = "aircraft"
    title = "FGVC-Aircraft 2013b"
    layouts = (
        (
            Part(
                (
                    "fgvc-aircraft-2013b.tar.gz",
                    "fgvc-aircraft-2013b",
                    "aircraft/fgvc-aircraft-2013b.tar.gz",
                ),
                "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/"
                "fgvc-aircraft-2013b.tar.gz",
                "md5:d4acdd33327262359767eeaa97a4f732",
            ),
        ),
    )

    def listing(self, paths):
        """See `Dataset.listing`."""
        (path,) = paths
        files = open_files(path)
        lists = {f"images_variant_{part}.txt" for part in _LISTS}
        names, contents = files.scan(lambda name: name.split("/")[-1] in lists)
        root = root_of(names, "images_variant_test.txt", path)
        variants = {}
        for content in contents.values():
            for line in content.decode().splitlines():
                if line.strip():
                    number, _, variant = line.strip().partition(" ")
                    variants[number] = variant.strip()
        if not all(variants.values()):
            raise DatasetError(f"{path}: a line of images_variant_*.txt names no variant.")
        images = [(variant, f"{root}images/{number}.jpg") for number, variant in variants.items()]
        return Listing(images, lambda: files.read([key for _, key in images]))

    def adjust(self, image):
        """Cuts the banner off."""
        return image.crop((0, 0, image.width, max(1, image.height - _BANNER)))
