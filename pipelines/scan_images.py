"""Finds out which image datasets are in the data directory; runs at every `dvc repro`.

DVC sees neither environment variables nor files outside the project. What this writes changes
when images arrive or change, and that is what the other stages depend on.
"""

import argparse
import json

from pipelines import params as parameters


def main() -> None:
    """Writes one small file for each dataset."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", required=True, choices=parameters.SCALES)
    scale = parser.parse_args().scale
    params = parameters.load()

    from mmaml_tf import datasets
    from mmaml_tf.datasets.sources import fingerprint
    from pipelines.classification import sources_file

    directory = datasets.data_directory(parameters.get(params, "classification.data_directory"))
    for name, dataset in datasets.DATASETS.items():
        paths = dataset.locate(directory)
        found = {"sources": paths and fingerprint(paths)}
        path = sources_file(scale, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found) + "\n")
        print(f"{name}: {'found' if paths else 'not there'}")


if __name__ == "__main__":
    main()
