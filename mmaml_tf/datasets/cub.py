"""Caltech-UCSD Birds-200-2011 (Wah et al. 2011)."""

from mmaml_tf.datasets.archives import open_files
from mmaml_tf.datasets.dataset import Dataset, Listing, Part, root_of


class CUB(Dataset):
    """Reads `CUB_200_2011.tgz` or its folder: whole images, without the bounding boxes.

    A class is a folder's name, "NNN.Name".
    """

    name = "cub"
    title = "CUB-200-2011"
    layouts = (
        (
            Part(
                ("CUB_200_2011.tgz", "CUB_200_2011", "cub/CUB_200_2011.tgz"),
                "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
                "md5:97eceeb196236b17998738112f37df78",
            ),
        ),
    )

    def listing(self, paths):
        """See `Dataset.listing`."""
        (path,) = paths
        files = open_files(path)
        names, contents = files.scan(lambda name: name.endswith("images.txt"))
        root = root_of(names, "images.txt", path)
        lines = contents[f"{root}images.txt"].decode().splitlines()
        images = [
            (name.split("/")[0], f"{root}images/{name}")
            for name in (line.split(maxsplit=1)[1].strip() for line in lines if line.strip())
        ]
        return Listing(images, lambda: files.read([key for _, key in images]))
