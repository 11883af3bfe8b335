"""The error of everything that reads image data."""


class DatasetError(ValueError):
    """A dataset's files are missing, damaged, not as distributed, or not to be trusted."""
