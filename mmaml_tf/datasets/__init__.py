"""Image datasets for few-shot classification, read from their official distributions.

`prepare` decodes a dataset once; `PreparedImages.load` maps the result. Needs the extra `images`.
"""

from mmaml_tf.extras import absent

if _absent := absent("images", "PIL", "filelock", "scipy", "tqdm"):
    raise ImportError(_absent)

from mmaml_tf.datasets.dataset import Contents, Counts, ImageDataset, Needed
from mmaml_tf.datasets.errors import DatasetError
from mmaml_tf.datasets.folder import FolderDataset
from mmaml_tf.datasets.preparation import prepare
from mmaml_tf.datasets.prepared import PreparedImages
from mmaml_tf.datasets.registry import DATASETS, available, data_directory, missing, register

__all__ = [
    "DATASETS",
    "Contents",
    "Counts",
    "DatasetError",
    "FolderDataset",
    "ImageDataset",
    "Needed",
    "PreparedImages",
    "available",
    "data_directory",
    "missing",
    "prepare",
    "register",
]
