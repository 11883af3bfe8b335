"""One order of arguments, Keras's names, and errors for former names that give the new ones."""

import inspect
import subprocess
import sys

import factory
import keras
import numpy as np
import policies
import pytest

import mmaml_tf as mm
from mmaml_tf import layers, rl
from mmaml_tf.rl.rollouts import Rollouts

NETWORKS = {"networks": [factory.mlp(0), factory.mlp(1)], "modes": factory.MODES}
LEARNERS = (
    *(mm.Learner, mm.MAML, mm.MMAML, mm.LSTMLearner, mm.MultiMAML, mm.ProtoNet),
    *(rl.PolicyLearner, rl.ProMP, rl.MultimodalProMP, rl.MultiProMP),
)


@pytest.mark.parametrize("kind", LEARNERS)
def test_all_learners_have_one_order_of_arguments(kind):
    first, *others = [
        p for p in inspect.signature(kind).parameters.values() if p.kind is not p.VAR_KEYWORD
    ]
    assert first.name == (
        "networks" if issubclass(kind, mm.MultiMAML | rl.MultiProMP) else "network"
    )
    assert {p.kind for p in others} == {inspect.Parameter.KEYWORD_ONLY}
    names = [p.name for p in others]
    parts = [name for name in ("encoder", "modulation", "inner_loop") if name in names]
    assert [name for name in names if name in parts] == parts


@pytest.mark.parametrize("kind", LEARNERS)
def test_values_by_position_are_answered_by_their_names(kind):
    with pytest.raises(
        TypeError, match=rf"{kind.__name__} got a InnerLoop after network.*keyword: "
    ):
        kind(factory.mlp(), mm.InnerLoop())


def test_learners_take_five_inner_steps_where_nothing_else_is_said():
    encoder = mm.encoders.SequenceEncoder(2, 1)
    made = (
        mm.MAML(factory.mlp()),
        mm.MMAML(factory.mlp(), encoder=encoder),
        mm.MultiMAML(**NETWORKS),
        rl.ProMP(policies.policy()),
    )
    for learner in made:
        assert learner.inner_loop.settings() == mm.InnerLoop().settings()
    without = (
        mm.LSTMLearner(factory.mlp(), encoder=encoder),
        mm.ProtoNet(mm.networks.ConvNet((4,), None), ways=2),
    )
    assert [learner.inner_loop.steps for learner in without] == [0, 0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda loop: mm.LSTMLearner(factory.mlp(), encoder=ENCODER, inner_loop=loop),
            "inner_loop",
        ),
        (lambda loop: mm.MultiMAML(**NETWORKS, encoder=ENCODER), "MultiMAML has no encoder"),
        (lambda loop: mm.MAML(factory.mlp(), modulation="film"), "MAML has no modulation"),
    ],
)
def test_parts_that_a_learner_has_none_of_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(mm.InnerLoop())


ENCODER = mm.encoders.SequenceEncoder(2, 1)
FORMER = {
    "stddev": (lambda: mm.networks.MLP(stddev=0.1), "kernel_initializer, such as"),
    "xavier": (lambda: mm.modulation.FiLM(xavier=True), 'kernel_initializer="glorot_uniform"'),
    "initializer": (lambda: layers.Dense(2, initializer="ones"), "kernel_initializer"),
    "stride": (lambda: layers.conv2d(None, None, stride=1), "strides"),
    "batch": (lambda: mm.evaluate(None, None, batch=3), "batch_size"),
    "environment": (lambda: Rollouts(environment="mmaml_tf/PointMass-v0"), "env_id"),
}


@pytest.mark.parametrize("name", FORMER)
def test_former_arguments_are_answered_by_the_new_ones(name):
    make, new = FORMER[name]
    with pytest.raises(TypeError, match=f"no argument '{name}' any more; give {new}"):
        make()


def test_former_attributes_are_answered_by_the_new_ones():
    with pytest.raises(ImportError, match=r"mmaml_tf\.rl\.evaluate is mmaml_tf\.evaluate now"):
        _ = rl.evaluate
    with pytest.raises(ImportError, match=r"mmaml_tf\.evaluate now"):
        exec("from mmaml_tf.rl import evaluate")
    with pytest.raises(AttributeError, match="no attribute 'evaluates'"):
        _ = rl.evaluates


@pytest.mark.parametrize("initializer", ["he_normal", keras.initializers.HeNormal(seed=4)])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda **given: mm.networks.MLP((3, 3, 3), outputs=3, **given), (None, 3)),
        (lambda **given: mm.networks.ConvNet((3, 3, 3), **given), (None, 8, 8, 3)),
        (lambda **given: rl.GaussianPolicy(3, (3, 3), **given), (None, 3)),
    ],
)
def test_one_initializer_gives_every_layer_values_of_its_own(make, shape, initializer):
    def kernels(**given):
        network = make(kernel_initializer=initializer, **given)
        network.build(shape)
        return [w.numpy() for w in network.trainable_variables if w.name == "kernel"]

    first, second, *_ = kernels(seed=1)
    assert first.shape == second.shape
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, kernels(seed=1)[0])
    assert not np.array_equal(first, kernels(seed=2)[0])


def test_an_initializers_own_seed_counts():
    def kernel(seed):
        network = mm.networks.MLP(
            (5, 4), kernel_initializer=keras.initializers.RandomNormal(seed=seed)
        )
        network.build((None, 1))
        return network.dense[0].kernel.numpy()

    np.testing.assert_array_equal(kernel(3), kernel(3))
    assert not np.array_equal(kernel(3), kernel(4))
    with pytest.raises(ValueError, match="the initializer's seed"):
        mm.networks.MLP(
            (5, 4), kernel_initializer=keras.initializers.HeNormal(keras.random.SeedGenerator(3))
        )


@pytest.mark.parametrize(
    ("make", "published"),
    [
        (mm.networks.MLP, keras.initializers.RandomNormal(stddev=0.01)),
        (mm.networks.ConvNet, "glorot_uniform"),
        (lambda **given: rl.GaussianPolicy(2, **given), "glorot_uniform"),
    ],
)
def test_none_is_the_published_initializer(make, published):
    networks = [make(kernel_initializer=given) for given in (None, published)]
    for network in networks:
        network.build((None, 8, 8, 3) if isinstance(network, mm.networks.ConvNet) else (None, 3))
    for first, second in zip(*(n.trainable_variables for n in networks), strict=True):
        np.testing.assert_array_equal(first.numpy(), second.numpy())


def test_functions_and_constants_are_initializers_too():
    def twos(shape, dtype=None):
        return keras.ops.full(shape, 2.0, dtype)

    for initializer, value in ((twos, 2), (keras.initializers.Constant(3.0), 3)):
        network = mm.networks.MLP((5, 4), kernel_initializer=initializer)
        network.build((None, 1))
        assert (network.dense[1].kernel.numpy() == value).all()


@pytest.mark.parametrize("name", ["glorot_uniform", "he_normal", "lecun_uniform"])
def test_heads_start_as_parts_of_one_layer(name):
    film = mm.modulation.FiLM(kernel_initializer=name, bias_initializer="ones")
    film.build_for(200, [(3, 20), (20, 60)])
    whole = keras.initializers.get(name)((200, 160)).numpy()
    for head in film.heads.values():
        np.testing.assert_allclose(head.kernel.numpy().std(), whole.std(), rtol=0.05)
        assert (head.bias.numpy() == 1).all()


@pytest.mark.parametrize("given", ["glorot", 0.01, [1]])
def test_what_is_no_initializer_is_refused(given):
    with pytest.raises(ValueError, match=r"kernel_initializer=.*expected a Keras initializer"):
        mm.networks.MLP(kernel_initializer=given)


@pytest.mark.parametrize(
    "make",
    [
        lambda start: mm.networks.MLP((3,), kernel_initializer=start),
        lambda start: mm.networks.ConvNet((3,), kernel_initializer=start),
        lambda start: rl.GaussianPolicy(2, (3,), kernel_initializer=start),
        lambda start: mm.modulation.FiLM(kernel_initializer=start),
    ],
)
def test_initializers_are_part_of_the_configuration(make):
    made = make(keras.initializers.RandomNormal(stddev=0.5, seed=2))
    again = type(made).from_config(made.get_config())
    assert again.get_config() == made.get_config()
    assert again.kernel_initializer.stddev == 0.5


def test_evaluating_does_not_import_what_only_policies_need():
    code = (
        "import sys, mmaml_tf as mm\n"
        "learner = mm.MAML(mm.networks.MLP((2,)), inner_loop=mm.InnerLoop(1))\n"
        "learner.compile(loss='mse', jit_compile=False)\n"
        "learner.build_for(mm.tasks.FunctionTasks().sample(2, 0))\n"
        "mm.evaluate(learner, mm.tasks.FunctionTasks(), 2)\n"
        "assert not {'tf_agents', 'mmaml_tf.rl', 'gymnasium'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"rollouts": 3}, "rollouts, which has no meaning for a MAML"),
        ({"learner": factory.mlp()}, "learner is a MLP; expected a mmaml_tf.Learner"),
    ],
)
def test_evaluations_that_make_no_sense_are_refused(asked, message):
    settings = {"learner": factory.learner("MAML"), "tasks": factory.episodes()} | asked
    with pytest.raises(ValueError, match=message):
        mm.evaluate(**settings)


def test_the_queries_of_functions_may_have_their_former_name():
    with pytest.warns(FutureWarning, match="query is queries now"):
        assert mm.tasks.FunctionTasks(query=3).queries == 3
    with pytest.raises(TypeError, match="got 'queries' twice"):
        mm.tasks.FunctionTasks(query=3, queries=3)
