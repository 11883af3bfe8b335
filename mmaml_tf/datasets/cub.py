"""Caltech-UCSD Birds-200-2011: 200 classes, 11,788 photographs."""

from mmaml_tf.datasets.archives import open_tree
from mmaml_tf.datasets.dataset import Contents, Counts, ImageDataset, Needed
from mmaml_tf.datasets.errors import DatasetError


class CUB(ImageDataset):
    """A class is a folder's name, such as "001.Black_footed_Albatross". Whole images, no boxes.

    Files: `CUB_200_2011.tgz` or its folder `CUB_200_2011`.
    """

    name = "cub"
    folders = ("cub", ".")
    layouts = (
        (
            Needed(
                ("CUB_200_2011.tgz", "CUB_200_2011"),
                "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
                "97eceeb196236b17998738112f37df78",
            ),
        ),
    )
    counts = (Counts("CUB_200_2011", 200, 11788),)

    def read(self, paths):
        """Lists the images that `images.txt` names."""
        tree = open_tree(paths[0], keep=("images.txt",))
        root, lines = tree.text("images.txt")
        classes, members = {}, {}
        for line in lines.splitlines():
            key = line.partition(" ")[2].strip()
            if key.count("/") != 1:
                raise DatasetError(
                    f"{tree.path}: images.txt has the line {line!r}, 'number class/file' expected."
                )
            classes.setdefault(key.partition("/")[0], []).append(key)
            members[f"{root}/images/{key}".removeprefix("/")] = key

        def images():
            for name, content in tree.read(members):
                yield members[name], content

        return Contents(classes, images)
