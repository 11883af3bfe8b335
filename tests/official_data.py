"""Tiny datasets in the layouts of the official distributions."""

import csv
import io
import pickle
import tarfile
import zipfile

import numpy as np
from PIL import Image

from mmaml_tf import datasets


def allow_incomplete(monkeypatch):
    """Has `prepare` take these datasets for complete, few images as they have."""
    for name in MAKERS:
        monkeypatch.setattr(type(datasets.DATASETS[name]), "counts", ())


def pixels(seed, height=40, width=50, gray=False):
    """Smooth random pixels, so that a lossy format keeps them."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5) if gray else (4, 5, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encoded(array, kind="JPEG", **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


def write_tree(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def write_zip(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def write_tar(path, files, mode="w:gz"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


FORMS = {
    "folder": write_tree,
    "zip": write_zip,
    "tar.gz": write_tar,
    "tar": lambda path, files: write_tar(path, files, "w"),
    "tar.bz2": lambda path, files: write_tar(path, files, "w:bz2"),
    "tar.xz": lambda path, files: write_tar(path, files, "w:xz"),
}


def drawing(seed):
    """A white page of one bit a pixel with a black stroke, as Omniglot has them."""
    page = np.full((105, 105), 255, np.uint8)
    page[20 + seed % 60 : 25 + seed % 60, 10:90] = 0
    file = io.BytesIO()
    Image.fromarray(page).convert("1").save(file, "PNG")
    return file.getvalue()


def omniglot(root, form="archive"):
    halves = {
        "images_background": [("Greek", 1), ("Greek", 2), ("Anglo-Saxon_Futhorc", 1)],
        "images_evaluation": [("Syriac_(Serto)", 1)],
    }
    for half, characters in halves.items():
        files = {
            f"{half}/{alphabet}/character{n:02d}/{n:04d}_{i:02d}.png": drawing(17 * n + i)
            for alphabet, n in characters
            for i in (1, 2, 3)
        }
        if form == "archive":
            # Archives made on a Mac hold resource forks.
            files[f"__MACOSX/{half}/._Greek"] = b"fork"
            write_zip(root / "omniglot" / f"{half}.zip", files)
        else:
            write_tree(root / "omniglot", files)
    return {
        "Anglo-Saxon_Futhorc/character01": 3,
        "Greek/character01": 3,
        "Greek/character02": 3,
        "Syriac_(Serto)/character01": 3,
    }


def mini_imagenet(root, form="archive"):
    parts = {"train": ("n01", "n03"), "val": ("n02",), "test": ("n04",)}
    folder = root / "mini-imagenet"
    folder.mkdir(parents=True)
    for number, (part, classes) in enumerate(parts.items()):
        names = [(f"{c}{i:08d}.jpg", c) for c in classes for i in (1, 2)]
        if form == "archive":
            content = {
                "image_data": np.stack(
                    [pixels(10 * number + i, 84, 84) for i in range(len(names))]
                ),
                "class_dict": {c: [2 * j, 2 * j + 1] for j, c in enumerate(classes)},
            }
            with open(folder / f"mini-imagenet-cache-{part}.pkl", "wb") as file:
                pickle.dump(content, file, protocol=2)
            continue
        with open(folder / f"{part}.csv", "w", newline="") as file:
            csv.writer(file).writerows([("filename", "label"), *names])
        write_tree(
            folder / "images",
            {name: encoded(pixels(10 * number + i)) for i, (name, _) in enumerate(names)},
        )
    return dict.fromkeys(("n01", "n02", "n03", "n04"), 2)


def cifar(part):
    """Rows of a part: red, green and blue planes one after the other."""
    labels = {"train": [1, 0, 1], "test": [0, 1]}[part]
    images = [pixels(i + len(labels), 32, 32) for i in range(len(labels))]
    return np.stack(images), labels


def cifar100(root, form="archive"):
    files = {"meta": {b"fine_label_names": [b"whale", b"apple"]}}
    for part in ("train", "test"):
        images, labels = cifar(part)
        rows = images.transpose(0, 3, 1, 2).reshape(len(labels), 3072)
        files[part] = {b"data": rows, b"fine_labels": labels, b"filenames": [b"x.png"]}
    files = {f"cifar-100-python/{n}": pickle.dumps(v, protocol=2) for n, v in files.items()}
    if form == "archive":
        write_tar(root / "cifar-100-python.tar.gz", files)
    else:
        write_tree(root, files)
    return {"apple": 3, "whale": 2}


def cub(root, form="archive"):
    names = [
        f"{folder}/{i}_{n}.jpg" for folder in ("002.Tern", "001.Gull") for i in "AB" for n in (1, 2)
    ]
    files = {f"CUB_200_2011/images/{n}": encoded(pixels(i)) for i, n in enumerate(names)}
    # A few of the photographs are gray.
    files[f"CUB_200_2011/images/{names[0]}"] = encoded(pixels(99, gray=True))
    lines = "".join(f"{i} {name}\n" for i, name in enumerate(names, start=1))
    files["CUB_200_2011/images.txt"] = lines.encode()
    if form == "archive":
        write_tar(root / "CUB_200_2011.tgz", {"attributes.txt": b"x", **files})
    else:
        write_tree(root, files)
    return {"001.Gull": 4, "002.Tern": 4}


def aircraft(root, form="archive", lists=("train", "val", "test")):
    variants = ("707-320", "F-16A/B", "F/A-18")
    base = "fgvc-aircraft-2013b/data"
    files = {f"{base}/variants.txt": "".join(f"{v}\n" for v in variants).encode()}
    number = 1000000
    for part in lists:
        lines = []
        for variant in variants:
            number += 1
            lines.append(f"{number} {variant}\n")
            photograph = pixels(number, 60, 50).copy()
            photograph[-20:] = 255
            files[f"{base}/images/{number}.jpg"] = encoded(photograph, quality=95)
        files[f"{base}/images_variant_{part}.txt"] = "".join(lines).encode()
    if form == "archive":
        write_tar(root / "fgvc-aircraft-2013b.tar.gz", files)
    else:
        write_tree(root, files)
    return dict.fromkeys(variants, len(lists))


def flowers(root, form="archive"):
    from scipy.io import savemat

    labels = [2, 1, 2, 102]
    files = {f"jpg/image_{i:05d}.jpg": encoded(pixels(i)) for i in range(1, 5)}
    if form == "archive":
        write_tar(root / "flowers-102" / "102flowers.tgz", files)
    else:
        write_tree(root / "flowers-102", files)
    savemat(root / "flowers-102" / "imagelabels.mat", {"labels": np.array([labels], np.uint8)})
    return {
        "001.pink primrose": 1,
        "002.hard-leaved pocket orchid": 2,
        "102.blackberry lily": 1,
    }


MAKERS = {
    "omniglot": omniglot,
    "mini_imagenet": mini_imagenet,
    "fc100": cifar100,
    "cifar_fs": cifar100,
    "cub": cub,
    "aircraft": aircraft,
    "flowers": flowers,
}
