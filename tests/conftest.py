import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
# TensorFlow leaves oneDNN out on processors without AVX512-VNNI, and grouped convolutions then have
# no gradient to test.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# LLVM's optimisation takes a third of the tests of XLA, whose own optimisation is what they test.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import pytest


def pytest_configure(config):
    """Imports TensorFlow where tests run, which is not where pytest-xdist hands them out."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return
    import tensorflow as tf

    # The processes of the tests share the cores; tests of shards ask for some.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.get_logger().setLevel("ERROR")
    # Tests take a few steps each with hundreds of graphs, which repays no optimisation of the
    # graphs; those of the pipeline and the command line have it, in processes of their own.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    # What was imported stays, and looking through it for garbage takes long.
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


@pytest.fixture
def float64():
    """Runs a test in double precision, where finite differences mean something."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


def pytest_collection_modifyitems(items):
    """Puts a long file first and short ones last, so that no process is left without work."""
    short = ("datasets", "tasks")
    items.sort(key=lambda i: (i.path.name != "test_training.py", i.path.parent.name in short))
