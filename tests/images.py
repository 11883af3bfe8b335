"""Small image tasks and classifiers for the tests."""

import keras
import numpy as np

import mmaml_tf as mm
from mmaml_tf.tasks.class_splits import ClassSplit

SIZE = 8


def mode(name="a", seed=0, classes=(6, 6, 6), per_class=12, channels=3, size=SIZE, **kwargs):
    """A mode whose classes are noisy copies of one random picture each."""
    rng = np.random.default_rng(seed)
    names = [f"{name}{i:02d}" for i in range(sum(classes))]
    pictures = rng.integers(0, 256, (len(names), 1, size, size, channels))
    noisy = pictures + rng.normal(0, 40, (len(names), per_class, size, size, channels))
    images = np.clip(noisy, 0, 255).astype(np.uint8).reshape(-1, size, size, channels)
    offsets = {n: (i * per_class, (i + 1) * per_class) for i, n in enumerate(names)}
    ends = np.cumsum(classes)
    parts = [tuple(names[a:b]) for a, b in zip((0, *ends), ends, strict=False)]
    split = ClassSplit(*parts, "made for tests")
    return mm.tasks.ImageMode(name, images, offsets, split, digest=name, **kwargs)


def tasks(**kwargs):
    settings = {"ways": 3, "support": 1, "queries": 2} | kwargs
    return mm.tasks.ImageTasks([mode("a"), mode("b", seed=1)], **settings)


def learner(recipe="MMAML", ways=3, jit=False, filters=(4, 4), statistics="query", **kwargs):
    """A small classifier of one of the recipes, compiled and built."""
    outputs = None if recipe.endswith("ProtoNet") else ways
    network = mm.networks.ConvNet(filters, outputs, statistics)
    if recipe.startswith("MM") or recipe == "MProtoNet":
        kwargs["encoder"] = mm.encoders.ImageEncoder(filters, units=6)
        kwargs["modulation"] = "film"
    if recipe.endswith("ProtoNet"):
        made = mm.ProtoNet(network, ways=ways, **kwargs)
    else:
        kind, head = (mm.MMAML if "encoder" in kwargs else mm.MAML), "learned"
        if recipe == "ProtoMAML":
            head = "prototypes"
        made = kind(network, inner_loop=mm.InnerLoop(2, 0.1), head=head, **kwargs)
    made.compile(
        keras.optimizers.Adam(1e-2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
        jit_compile=jit,
    )
    made.build_for(tasks(ways=ways).sample(2, seed=0))
    return made
