"""An exported classifier as an MLflow pyfunc."""

import images
import logged_models
import mlflow
import numpy as np
import pytest
import tensorflow as tf

from mmaml_tf.tracking import Tracker, pyfunc_model

NAMES = ("support_x", "support_y", "query_x")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    learner, path = images.learner("MMAML", fewer_ways=True), tmp_path_factory.mktemp("m") / "m"
    learner.export(path)
    return learner, path


def inputs(tasks=1, ways=3, **kwargs):
    batch = images.tasks(ways=ways, **kwargs).sample(tasks, seed=2)
    return dict(zip(NAMES, batch[:3], strict=False))


def expected(learner, given):
    return tf.nn.softmax(learner.adapt(given["support_x"], given["support_y"])(given["query_x"]))


def test_the_stored_class_predicts_alone(exported):
    learner, path = exported
    predictor = pyfunc_model.SavedModelPredictor()
    predictor.load_context(type("Context", (), {"artifacts": {"saved_model": str(path)}}))
    given = inputs(2)
    np.testing.assert_allclose(
        predictor.predict(None, given), expected(learner, given), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ValueError, match=r"inputs \['query_x'\] are missing"):
        predictor.predict(None, {name: given[name] for name in NAMES[:2]})


def test_a_logged_classifier_predicts_other_sizes_of_a_task(exported, tmp_path):
    learner, path = exported
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    example = inputs()
    with Tracker("images", "run", "key", uri=uri) as tracker:
        prediction = expected(learner, example).numpy()
        tracker.log_model(path, example=example, prediction=prediction)
    logged, specs = logged_models.load(uri, "images")
    pictures = ("float32", (-1, -1, 8, 8, 3))
    assert specs == {
        "support_x": pictures,
        "support_y": ("int32", (-1, -1)),
        "query_x": pictures,
        "output": ("float32", (-1, -1, 3)),
    }
    for given in (inputs(3, support=2, queries=4), inputs(2, ways=2)):
        found = logged.predict(given)
        np.testing.assert_allclose(found, expected(learner, given), rtol=1e-4, atol=1e-5)
    floats = given["support_y"].astype("f")
    with pytest.raises(mlflow.MlflowException, match="float32"):
        logged.predict(given | {"support_y": floats})
