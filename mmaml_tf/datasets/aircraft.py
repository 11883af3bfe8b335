"""FGVC-Aircraft 2013b: 100 variants of aircraft, 100 photographs each."""

from mmaml_tf.datasets.archives import open_tree
from mmaml_tf.datasets.dataset import Contents, Counts, ImageDataset, Needed
from mmaml_tf.datasets.errors import DatasetError

_BANNER = 20
_LISTS = {part: f"images_variant_{part}.txt" for part in ("train", "val", "trainval", "test")}


class Aircraft(ImageDataset):
    """A class is a variant by its official name, which may hold a slash: "F/A-18".

    Files: `fgvc-aircraft-2013b.tar.gz` or its folder.
    """

    name = "aircraft"
    folders = ("aircraft", "fgvc-aircraft", ".")
    layouts = (
        (
            Needed(
                ("fgvc-aircraft-2013b.tar.gz", "fgvc-aircraft-2013b"),
                "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/"
                "fgvc-aircraft-2013b.tar.gz",
                "d4acdd33327262359767eeaa97a4f732",
            ),
        ),
    )
    counts = (Counts("fgvc-aircraft-2013b", 100, 10000),)

    def read(self, paths):
        """Lists the images of all official parts."""
        tree = open_tree(paths[0], keep=("variants.txt", *_LISTS.values()))
        root, variants = tree.text("variants.txt")
        variants = [line.strip() for line in variants.splitlines() if line.strip()]
        parts = ("trainval", "test") if tree.has(_LISTS["trainval"]) else ("train", "val", "test")
        classes, members = {name: [] for name in variants}, {}
        for part in parts:
            for line in tree.text(_LISTS[part])[1].splitlines():
                number, _, variant = line.strip().partition(" ")
                if variant not in classes:
                    raise DatasetError(
                        f"{tree.path}: {_LISTS[part]} has the line {line!r}, 'image variant' with "
                        "a variant of variants.txt expected."
                    )
                classes[variant].append(number)
                members[f"{root}/images/{number}.jpg".removeprefix("/")] = number

        def images():
            for name, content in tree.read(members):
                yield members[name], content

        return Contents(classes, images)

    def adjust(self, image):
        """Removes the banner with the photographer's name, which could give the class away."""
        if image.height <= _BANNER:
            raise DatasetError(f"only {image.height} rows high, {_BANNER} of them a banner")
        return image.crop((0, 0, image.width, image.height - _BANNER))
