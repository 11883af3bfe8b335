"""Evaluation: the tasks it takes, what it measures, and the intervals of what it found."""

import factory
import images
import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import mmaml_tf as mm
from mmaml_tf.evaluation import Estimate, Report, task_embeddings
from mmaml_tf.keras_internals import compiled_metrics

MODES = factory.MODES


@pytest.fixture(scope="module")
def learner():
    made = factory.learner("MMAML")
    made.compile("adam", "mse", jit_compile=False, metrics=["mae", "RootMeanSquaredError"])
    return made


@pytest.fixture(scope="module")
def held_out():
    return mm.tasks.FunctionTasks(MODES, support=3, queries=4).held_out(6, seed=1)


def errors(learner, episodes, steps=None):
    """Each task's mean squared and mean absolute error."""
    predictions = learner.adapt(episodes.support_x, episodes.support_y, steps=steps)
    difference = (predictions(episodes.query_x) - episodes.query_y).numpy()
    return (difference**2).mean((1, 2)), np.abs(difference).mean((1, 2))


# -- estimates --------------------------------------------------------------------------------


def test_the_interval_is_students():
    values = np.array([1.0, 2.0, 4.0, 4.5])
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = Estimate.of(values)
    assert (found.mean, found.n, found.nonfinite) == (values.mean(), 4, 0)
    assert found.ci95 == pytest.approx((high - low) / 2)
    assert Estimate.of(np.arange(100_000) % 2).ci95 == pytest.approx(1.96 * 0.5 / 1e5**0.5, 1e-4)


def test_intervals_over_modes_leave_differences_between_modes_out():
    a, b = np.array([0.9, 1.0, 1.05]), np.array([0.2, 0.4, 0.1, 0.7])
    found = Estimate.of(np.concatenate([a, b]), [0] * 3 + [1] * 4)
    assert found.mean == pytest.approx((a.mean() + b.mean()) / 2)
    # Welch's interval of the difference of two means is twice that of their average.
    low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert found.ci95 == pytest.approx((high - low) / 4)


def test_intervals_cover_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(4000, 7)) * ([1] * 3 + [3] * 4)
    found = [Estimate.of(values, [0] * 3 + [1] * 4) for values in draws]
    assert np.mean([abs(e.mean) < e.ci95 for e in found]) == pytest.approx(0.95, abs=0.02)


def test_one_task_has_no_interval_and_equal_values_one_of_nothing():
    alone = Estimate.of([3.0])
    assert alone.mean == 3 and np.isnan(alone.ci95) and alone.n == 1
    assert np.isnan(Estimate.of([3.0, 1.0, 2.0], [0, 1, 1]).ci95)
    assert Estimate.of([2.0, 2.0, 2.0]).ci95 == 0
    assert np.isnan(Estimate.of([]).mean) and Estimate.of([]).n == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_not_left_out(bad):
    found = Estimate.of([1.0, bad, 2.0, 3.0], [0, 0, 1, 1])
    assert not np.isfinite(found.mean) and np.isnan(found.ci95)
    assert (found.n, found.nonfinite) == (4, 1)
    assert "(1 of 4 not finite)" in str(found)
    assert np.isnan(Estimate.of([np.inf, -np.inf]).mean)


def report(values=(1.0, 2.0, 3.0, 4.0), digest=None, modes=("a", "b"), **more):
    measures = {name: np.array([v, v]) for name, v in ({"loss": values} | more).items()}
    return Report(measures, np.array([0, 0, 1, 1]), modes, 1, (0, 1), digest)


def test_a_report_says_what_is_not_finite():
    printed = str(report(accuracy=(1.0, np.nan, 0.0, np.inf)))
    assert "accuracy after 1 steps: 2 of 4 tasks are not finite" in printed
    assert "loss" not in printed


def test_differences_are_of_the_same_tasks():
    ours, others = report((1.0, 2.0, 3.0, 5.0), "x"), report(digest="x")
    assert ours.difference(others).mean == 0.25
    assert ours.difference(report()).mean == 0.25, "of unknown tasks, but as many"
    for other in (report(digest="y"), report(modes=("a", "c"))):
        with pytest.raises(ValueError, match="reports are of different tasks"):
            ours.difference(other)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"steps": 2}, "steps=2 was not measured"),
        ({"steps": True}, "steps=True"),
        ({"mode": "c"}, r"mode='c' was not measured; the modes are \('a', 'b'\)"),
        ({"measure": "mae"}, r"measure='mae' was not measured; measured were \('loss',\)"),
    ],
)
def test_what_was_not_measured_is_named(asked, message):
    with pytest.raises(ValueError, match=message):
        report().estimate(**asked)


# -- the tasks it takes ------------------------------------------------------------------------


def parts(episodes):
    return [
        mm.Episodes(*(None if a is None else a[rows] for a in episodes[:5]))
        for rows in (slice(0, 5), slice(5, 12))
    ]


def as_dataset(episodes):
    return tf.data.Dataset.from_tensor_slices(mm.Episodes(*episodes[:5])).batch(5)


def as_lists(episodes):
    return [mm.Episodes(*(None if a is None else a.tolist() for a in episodes[:5]))]


@pytest.mark.parametrize("make", [mm.Episodes._make, parts, as_lists, as_dataset])
@pytest.mark.parametrize("modes", [True, False])
def test_episodes_at_hand(learner, held_out, make, modes):
    episodes = held_out.episodes if modes else held_out.episodes._replace(mode=None)
    found = mm.evaluate(learner, make(episodes))
    squared, absolute = errors(learner, episodes)
    np.testing.assert_allclose(found.values(), squared, rtol=1e-4)
    np.testing.assert_allclose(found.values(measure="mae"), absolute, rtol=1e-4)
    assert found.modes == (MODES if modes else ("tasks",))
    assert found.mode.tolist() == (held_out.mode.tolist() if modes else [0] * 12)
    if make is not as_lists:  # which are of double precision
        assert found.digest == mm.evaluate(learner, episodes, batch_size=np.int64(5)).digest


def test_a_held_out_set_without_modes(learner, held_out):
    unknown = held_out._replace(episodes=held_out.episodes._replace(mode=None), modes=("all",))
    found = mm.evaluate(learner, unknown, batch_size=5)
    squared, _ = errors(learner, held_out.episodes)
    np.testing.assert_allclose(found.values("all"), squared, rtol=1e-4)
    assert found.digest == unknown.digest() != held_out.digest()


def test_batches_of_many_shapes_share_a_graph(learner):
    rng = np.random.default_rng(0)
    sizes = [(1 + i % 3, 2 + i % 2, 2 + i) for i in range(7)]
    batches = [factory.episodes(t, k, q, seed=int(rng.integers(99))) for t, k, q in sizes]
    found = mm.evaluate(learner, batches)
    expected = np.concatenate([errors(learner, batch)[0] for batch in batches])
    np.testing.assert_allclose(found.values(), expected, rtol=1e-4)
    embeddings = [learner.embed(*batch[:2]) for batch in batches]
    np.testing.assert_allclose(
        task_embeddings(learner, batches), np.concatenate(embeddings), rtol=1e-4, atol=1e-6
    )


def test_the_first_tasks_of_each_mode_on_request(learner, held_out):
    found = mm.evaluate(learner, held_out, tasks_per_mode=np.int64(2), batch_size=5)
    rows = [0, 1, 6, 7]
    expected = mm.evaluate(learner, held_out).values()[rows]
    np.testing.assert_allclose(found.values(), expected, rtol=1e-4)
    assert found.mode.tolist() == [0, 0, 1, 1] and found.digest != held_out.digest()
    assert mm.evaluate(learner, held_out, 6).digest == held_out.digest()


def test_a_distribution_draws_its_own_tasks(learner):
    tasks = mm.tasks.FunctionTasks(MODES, support=3, queries=4)
    found = mm.evaluate(learner, tasks, np.int64(2), seed=np.int64(3), steps=np.int64(1))
    assert found.digest == tasks.held_out(2, 3).digest() and found.steps == 1
    squared, _ = errors(learner, tasks.held_out(2, 3).episodes, 1)
    np.testing.assert_allclose(found.values(), squared, rtol=1e-4)


def episodes(**changes):
    return factory.episodes()._replace(**changes)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: mm.tasks.FunctionTasks(MODES).dataset(4, seed=0), "endless.*take"),
        (lambda: as_dataset(factory.episodes()).repeat(), "endless"),
        (lambda: as_dataset(factory.episodes()).take(0), "the dataset is empty"),
        (lambda: [], "list of Episodes is empty"),
        (lambda: 3, "tasks is a int; expected a task distribution"),
        (lambda: [1], "expected mmaml_tf.Episodes, got int"),
        (lambda: tf.data.Dataset.range(3), "expected mmaml_tf.Episodes, got TensorSpec"),
        (lambda: tuple(factory.episodes()[:4]), "expected mmaml_tf.Episodes, got"),
        (lambda: episodes(query_y=None), "no query targets"),
        (lambda: episodes(query_x=np.zeros((4, 2, 3))), "query_x.*support_x|support_x.*query_x"),
        (
            lambda: episodes(support_x=np.zeros((4, 3, 2)), query_x=np.zeros((4, 2, 2))),
            r"support_x has points of shape \(2,\); .* built for \(1,\)",
        ),
        (lambda: episodes(query_y=np.zeros((4, 2, 3))), "query_y has points of shape"),
        (lambda: [episodes(), episodes(mode=None)], "some Episodes have modes"),
        (lambda: episodes(mode=np.array([0, 1, 2, 0])), r"mode is \[0, 1, 2, 0\]; expected"),
        (lambda: episodes(mode=np.array([0, 1, -1, 0])), "expected indices from 0"),
        (lambda: episodes(mode=np.array([0, 1])), r"mode has shape \(2,\)"),
        (lambda: episodes(mode=np.zeros(4)), "type float64; expected one integer"),
    ],
)
def test_what_is_no_task_is_refused(learner, given, message):
    with pytest.raises(ValueError, match=message):
        mm.evaluate(learner, given())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"steps": -1}, "steps.*-1"),
        ({"steps": True}, "steps.*True"),
        ({"curve": [0, 1.5]}, "steps.*1.5"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": True}, "batch_size=True"),
        ({"tasks_per_mode": 0}, "tasks_per_mode=0"),
        ({"seed": 3}, "seed=3: these tasks are drawn already"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(learner, held_out, asked, message):
    with pytest.raises(ValueError, match=message):
        mm.evaluate(learner, held_out, **asked)


def test_a_curve_may_be_an_array(learner, held_out):
    assert mm.evaluate(learner, held_out, curve=np.array([1, 3])).curve == (0, 1, 2, 3)
    assert mm.evaluate(learner, held_out, curve=np.int64(3)).curve == (0, 1, 2, 3)


def test_learners_that_are_not_ready_are_refused(held_out):
    with pytest.raises(ValueError, match="not compiled; call compile"):
        mm.evaluate(factory.learner("MAML", jit=None), held_out)
    new = mm.MAML(factory.mlp(), inner_loop=factory.inner_loop())
    new.compile("adam", "mse", jit_compile=False)
    with pytest.raises(ValueError, match="no weights yet; train it"):
        mm.evaluate(new, held_out)
    with pytest.raises(ValueError, match="learner is a Sequential; expected"):
        mm.evaluate(factory.keras_mlp(kind="sequential"), held_out)


def test_a_bank_of_modes_takes_episodes_with_modes_alone():
    bank = factory.learner("MultiMAML")
    found = mm.evaluate(bank, factory.episodes())
    batch = factory.episodes()
    predictions = bank.adapt(batch.support_x, batch.support_y, mode=batch.mode)(batch.query_x)
    np.testing.assert_allclose(
        found.values(), np.mean((predictions - batch.query_y) ** 2, (1, 2)), rtol=1e-4
    )
    with pytest.raises(ValueError, match="must be the same"):
        mm.evaluate(bank, episodes(mode=None))


# -- what it measures --------------------------------------------------------------------------


def test_metrics_are_measured_of_each_task_alone(learner, held_out):
    mm.evaluate(learner, held_out, 1)  # which makes the metrics
    for variable in compiled_metrics(learner).variables:
        variable.assign(3.0)
    found = mm.evaluate(learner, held_out)
    assert [float(v) for v in compiled_metrics(learner).variables] == [3.0] * 4
    assert list(found.measures)[:2] == ["noisy", "noise_free"]
    squared, absolute = errors(learner, held_out.episodes)
    np.testing.assert_allclose(found.values(measure="mae"), absolute, rtol=1e-4)
    rms = found.values(measure="RootMeanSquaredError")
    np.testing.assert_allclose(rms, np.sqrt(squared), rtol=1e-4)
    before = found.values(steps=0, measure="RootMeanSquaredError")
    np.testing.assert_allclose(before**2, found.values(steps=0), rtol=1e-4)


class Broken(keras.metrics.Metric):
    def update_state(self, y_true, y_pred, sample_weight=None):
        raise RuntimeError("not today")

    def result(self):
        return 0.0


class Vector(keras.metrics.MeanSquaredError):
    def result(self):
        return tf.zeros([3])


class Eager(keras.metrics.MeanSquaredError):
    def result(self):
        return tf.constant(float(super().result().numpy()))


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (Broken(name="broken"), "the metric 'broken' cannot be measured .*: not today"),
        (Vector(name="vector"), r"'vector' .* shape \(3,\); expected one number"),
        (Eager(name="eager"), "the metric 'eager' cannot be measured"),
    ],
)
def test_metrics_that_cannot_be_measured_by_task_are_refused(metric, message):
    learner = factory.learner("MAML", loop=factory.inner_loop(1))
    learner.compile("adam", "mse", jit_compile=False, metrics=[metric])
    with pytest.raises(ValueError, match=message):
        mm.evaluate(learner, factory.episodes())


def test_a_metric_with_a_name_of_the_learners_own_is_refused():
    metric = keras.metrics.MeanSquaredError(name="loss")
    with pytest.raises(ValueError, match="a metric is named 'loss'"):
        factory.learner("MAML").compile("adam", "mse", metrics=[metric])


def test_metrics_that_need_eager_execution_have_it():
    learner = factory.learner("MAML", loop=factory.inner_loop(1))
    learner.compile("adam", "mse", jit_compile=False, run_eagerly=True, metrics=[Eager(name="e")])
    found = mm.evaluate(learner, factory.episodes())
    np.testing.assert_allclose(found.values(measure="e"), found.values(), rtol=1e-5)


def test_class_labels_and_one_hot_targets():
    batch = images.tasks(queries=4).sample(4, seed=0)._replace(mode=None)
    classifier = images.learner("MAML")
    logits = classifier.adapt(*batch[:2])(batch.query_x).numpy()
    hits = np.mean(logits.argmax(-1) == batch.query_y, axis=1)
    found = mm.evaluate(classifier, batch)
    assert list(found.measures) == ["accuracy", "loss"]
    np.testing.assert_allclose(found.values(), hits)
    column = batch._replace(support_y=batch.support_y[..., None], query_y=batch.query_y[..., None])
    np.testing.assert_allclose(mm.evaluate(classifier, column).values(), hits)
    wrong = batch._replace(query_y=batch.query_y + 1)
    with pytest.raises(ValueError, match="class labels from 1 to 3; the learner has 3 classes"):
        mm.evaluate(classifier, wrong)

    one_hot = batch._replace(support_y=np.eye(3)[batch.support_y], query_y=np.eye(3)[batch.query_y])
    other = mm.MAML(mm.networks.ConvNet((4, 4), 3), inner_loop=mm.InnerLoop(2, 0.1))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    other.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
    other.build_for(one_hot)
    other.set_weights(classifier.get_weights())
    again = mm.evaluate(other, one_hot)
    np.testing.assert_allclose(again.values(measure="accuracy"), hits)
    np.testing.assert_allclose(again.values(), found.values(measure="loss"), rtol=1e-4)


def test_targets_that_are_not_finite_are_counted(learner):
    batch = factory.episodes()
    query_y = batch.query_y.numpy()
    query_y[1, 0] = np.nan
    found = mm.evaluate(learner, batch._replace(query_y=query_y))
    assert found.estimate().nonfinite == 1 and np.isnan(found.estimate().mean)
    assert "1 of 4 not finite" in str(found)
