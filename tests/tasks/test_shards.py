"""The parts of a batch that hosts draw are the tasks of the whole batch."""

import images
import numpy as np
import pytest

from mmaml_tf import rl
from mmaml_tf.tasks import ArrayTasks, FunctionTasks


def arrays():
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(12), 9)
    x = rng.normal(size=(len(user), 2))
    return ArrayTasks(x, x.sum(axis=1), user, {u: "ab"[u % 2] for u in range(12)}, support=(2, 4))


DISTRIBUTIONS = {
    "functions": lambda: FunctionTasks(support=3, queries=2),
    "images": images.tasks,
    "arrays": arrays,
    "goals": lambda: rl.GoalTasks("point_mass", 6),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_parts_are_the_tasks_of_the_batch(name, parts):
    tasks = DISTRIBUTIONS[name]()
    whole = list(tasks.dataset(6, seed=4, start=2).take(2))
    for part in range(parts):
        shards = list(tasks.dataset(6, seed=4, start=2, shard=(part, parts)).take(2))
        for step, (all_tasks, own) in enumerate(zip(whole, shards, strict=True), start=2):
            *fields, origin = all_tasks
            *own_fields, own_origin = own
            for expected, found in zip(fields, own_fields, strict=True):
                np.testing.assert_array_equal(found, expected[part::parts])
            assert origin.numpy().tolist() == [4, step]
            assert own_origin.numpy().tolist() == [4, step, part, parts]


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("shard", [(2, 2), (0, 4), (-1, 2), 1, (0, 1, 2), (0.5, 2)])
def test_what_is_no_part_of_a_batch_is_refused(name, shard):
    with pytest.raises(ValueError, match="shard"):
        DISTRIBUTIONS[name]().dataset(6, 0, shard=shard)
