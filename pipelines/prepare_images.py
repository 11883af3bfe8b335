"""Decodes and resizes the images of one dataset."""

import argparse
import json
import sys
import warnings

from pipelines import params as parameters


def main() -> None:
    """Prepares the dataset that the command line names, or notes that it is not there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", required=True, choices=parameters.SCALES)
    parser.add_argument("--dataset", required=True)
    arguments = parser.parse_args()
    params = parameters.load()
    schedule = parameters.classification_scale(params, arguments.scale)

    from mmaml_tf import datasets
    from mmaml_tf.datasets.prepared import paths
    from pipelines.classification import images_directory

    name = arguments.dataset
    output = images_directory(arguments.scale) / name
    output.mkdir(parents=True, exist_ok=True)
    directory = datasets.data_directory(parameters.get(params, "classification.data_directory"))
    download = parameters.get(params, "classification.download")
    download = download and bool(datasets.DATASETS[name].downloads)
    there = datasets.available(directory)[name]
    if there is True or download:
        images = datasets.prepare(
            name,
            directory,
            output,
            schedule["image_size"],
            download=download,
            progress=sys.stderr.isatty(),
        )
        about = json.loads(paths(output, name, schedule["image_size"])[1].read_text())
        files = about["sources"]["files"]
        status = {
            "available": True,
            "digest": images.digest,
            "images": len(images.images),
            "not_as_published": [f["name"] for f in files if not f.get("as_published", True)],
        }
        print(f"{name}: {len(images.images)} images of {len(images.classes)} classes")
    else:
        status = {"available": False, "message": there}
        warnings.warn(there, stacklevel=1)
    (output / "status.json").write_text(json.dumps(status) + "\n")


if __name__ == "__main__":
    main()
