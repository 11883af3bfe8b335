"""The published results, and what is known of how they were obtained."""

from typing import NamedTuple


class Method(NamedTuple):
    """A row of the tables.

    Attributes:
        label: name in tables and pictures.
        post_modulation: whether the row has a value after modulation, before any inner step.
        post_adaptation: whether the row has a value after the inner steps.
    """

    label: str
    post_modulation: bool = True
    post_adaptation: bool = True

    @property
    def shown(self) -> tuple[str, ...]:
        """Returns the names of the table's columns that have a value in this row."""
        flags = {"post_modulation": self.post_modulation, "post_adaptation": self.post_adaptation}
        return tuple(name for name, flag in flags.items() if flag)


class Published(NamedTuple):
    """Published mean squared errors of one table cell; None where nothing is published."""

    post_modulation: float | None
    post_adaptation: float | None


#: the rows of the tables in order; a table has those that its domain runs
METHODS = {
    "maml": Method("MAML", post_modulation=False),
    "multi_maml": Method("Multi-MAML", post_modulation=False),
    "lstm": Method("LSTM learner", post_adaptation=False),
    "softmax": Method("MMAML (softmax)"),
    "film": Method("MMAML (FiLM)"),
    "sigmoid": Method("MMAML (sigmoid)"),
    "film_layer1": Method("MMAML (FiLM, layer 1 only)"),
    "bayes": Method("Bayes-optimal", post_modulation=False),
    "protonet": Method("Prototypical network", post_modulation=False),
    "promp": Method("ProMP"),
    "multi_promp": Method("Multi-ProMP"),
    "mmaml": Method("MMAML"),
}

#: mean squared errors by kind and number of modes
REGRESSION = {
    ("maml", 2): Published(None, 1.085),
    ("maml", 3): Published(None, 1.231),
    ("maml", 5): Published(None, 1.668),
    ("multi_maml", 2): Published(None, 0.433),
    ("multi_maml", 3): Published(None, 0.713),
    ("multi_maml", 5): Published(None, 1.082),
    ("lstm", 2): Published(0.362, None),
    ("lstm", 3): Published(0.548, None),
    ("lstm", 5): Published(0.898, None),
    ("softmax", 2): Published(1.548, 0.361),
    ("softmax", 3): Published(2.213, 0.444),
    ("softmax", 5): Published(2.421, 0.939),
    ("film", 2): Published(2.421, 0.336),
    ("film", 3): Published(1.923, 0.444),
    ("film", 5): Published(2.166, 0.868),
    ("film_layer1", 2): Published(2.421, 0.336),
}

#: outer iterations of the published models
ITERATIONS = 70000

#: accuracies in % of image classification by kind and mode set, then by protocol
CLASSIFICATION = {
    ("maml", "2"): {"5w1s": 66.80, "5w5s": 77.79, "20w1s": 44.69},
    ("maml", "3"): {"5w1s": 54.55, "5w5s": 67.97, "20w1s": 28.22},
    ("maml", "5"): {"5w1s": 44.09, "5w5s": 54.41, "20w1s": 28.85},
    ("multi_maml", "2"): {"5w1s": 66.85, "5w5s": 73.07, "20w1s": 53.15},
    ("multi_maml", "3"): {"5w1s": 55.90, "5w5s": 62.20, "20w1s": 39.77},
    ("multi_maml", "5"): {"5w1s": 45.46, "5w5s": 55.92, "20w1s": 33.78},
    ("film", "2"): {"5w1s": 69.93, "5w5s": 78.73, "20w1s": 47.80},
    ("film", "3"): {"5w1s": 57.47, "5w5s": 70.15, "20w1s": 36.27},
    ("film", "5"): {"5w1s": 49.06, "5w5s": 60.83, "20w1s": 33.97},
}

#: images of the published modes, over all classes
IMAGES = {
    "omniglot": 32460,
    "mini_imagenet": 60000,
    "fc100": 60000,
    "cub": 11788,
    "aircraft": 10000,
}

CLASSIFICATION_PROTOCOL = (
    "Published protocol: images of 84 pixels, filters 32, 64, 128, 256, 15 queries a class; MAML "
    "and MMAML 60000 iterations of 10 tasks (5-way) or 80000 of 5 (20-way), Multi-MAML's members "
    "60000 of 10 (Omniglot, 5-way) or 80000 of 4; no validation."
)

CLASSIFICATION_UNKNOWN = (
    "Not known of the published values: their intervals, the number of test tasks, how the "
    "checkpoint was chosen, and how Multi-MAML was averaged over modes (here, like all others: the "
    "unweighted mean of the modes' means)."
)

#: settings of `classification.defaults` in params.yaml as published, of those that have one there
CLASSIFICATION_SETTINGS = {
    "inner_steps": 5,
    "inner_learning_rate": 0.05,
    "inner_clip": 20.0,
    "first_order": False,
    "head_only": False,
    "statistics": "query",
    "encoder_sees_labels": False,
    "outer_learning_rate": 0.001,
    "outer_clip": None,
    "dtype": "float32",
}

CLASSIFICATION_DIFFERENCES = (
    "Classes: the published Omniglot and CUB splits follow the order of files on a disk and cannot "
    "be had again. Here the order is sorted first, and the last 100 of Omniglot's 1100 training "
    "characters are for validation.",
    "The published loader inverts the colours of FC100 and loses one test class of Aircraft; here "
    "neither happens. Where a mode has fewer classes than a task needs, it draws classes twice; "
    "here such tasks have fewer ways.",
    "The banner under the photographs of FGVC-Aircraft is cut off here.",
    "The published Omniglot member of Multi-MAML with 5 ways was trained for 60,000 iterations, "
    "the others for 80,000; here all members of a protocol are trained for the same number.",
)

#: returns of policies and what stands behind ± by kind, then by set of goals
REINFORCEMENT = {
    "promp": {
        "point_mass-2": (-397, 20),
        "point_mass-4": (-523, 51),
        "point_mass-6": (-330, 10),
        "reacher-2": (-12.0, 2.0),
        "reacher-4": (-13.8, 2.5),
        "reacher-6": (-14.9, 2.9),
        "ant-2": (-761, 48),
        "ant-4": (-953, 46),
    },
    "multi_promp": {
        "point_mass-2": (-109, 6),
        "point_mass-4": (-109, 6),
        "point_mass-6": (-92, 4),
        "reacher-2": (-4.3, 0.1),
        "reacher-4": (-4.3, 0.1),
        "reacher-6": (-4.3, 0.1),
        "ant-2": (-624, 38),
        "ant-4": (-611, 31),
    },
    "mmaml": {
        "point_mass-2": (-136, 8),
        "point_mass-4": (-209, 32),
        "point_mass-6": (-169, 48),
        "reacher-2": (-10.0, 1.0),
        "reacher-4": (-11.0, 0.8),
        "reacher-6": (-10.9, 1.1),
        "ant-2": (-711, 25),
        "ant-4": (-904, 37),
    },
}

#: iterations of the published policies by environment
POLICY_ITERATIONS = {"point_mass": 401, "reacher": 501, "ant": 1001}
POLICY_OUTER_LEARNING_RATES = {"point_mass": 5e-5, "reacher": 1e-3, "ant": 1e-3}

REINFORCEMENT_PROTOCOL = (
    "Published protocol: in each iteration 40 tasks, each with 20 rollouts before and after every "
    "inner step; environment steps in all: 96 million (point mass), 60 million (reacher), 801 "
    "million (ant)."
)

REINFORCEMENT_UNKNOWN = (
    "Not known of the published values: what stands behind ±, the number of seeds, the goals they "
    "were measured on (the published code logs returns on the goals of training and has no "
    "evaluation), and with which environments and numbers of iterations they were obtained (its "
    "scripts do not run as they are)."
)

REINFORCEMENT_DIFFERENCES = (
    "The published encoder reads the first 100 steps of a task's rollouts, cut into 20 pieces of 5 "
    "steps, which looks like a mistake; whether the published values have it is not known. Here it "
    "reads whole rollouts. The gates of its GRU are plain sigmoids here.",
    "The published reacher with 6 modes draws goals of two of them only. Here it draws all six.",
    "There is no published script for Multi-ProMP. That its values are equal for 2 and 4 modes of "
    "the point mass and for all sets of the reacher suggests one policy whose value was used for "
    "all modes by symmetry; the reacher, whose arm starts along one axis, has none. Here it is one "
    "ProMP for each mode, trained alone and chosen by the true mode of a task.",
    "Here MuJoCo is a current version, its warm start is off, and the ant is Gymnasium's model. "
    "The published runs used an older version and an ant of their own, which is not released.",
)

#: entries of REGRESSION whose models modulate only the first hidden layer
FIRST_LAYER_ONLY = {("softmax", 2), ("film", 2), ("film_layer1", 2)}

FIRST_LAYER_NOTE = (
    "The published 2-mode softmax and FiLM models modulate the first hidden layer only, those for "
    "3 and 5 modes all hidden layers. The row “MMAML (FiLM, layer 1 only)” is therefore the "
    "like-for-like of the published 2-mode FiLM numbers, which stand beside both FiLM rows."
)

SOURCE = (
    "Published values: poster of “Multimodal Model-Agnostic Meta-Learning via Task-Aware "
    "Modulation”, Vuorio, Sun, Hu and Lim, NeurIPS 2019."
)

UNKNOWN = (
    "Not known of the published values: their intervals, the number of test tasks, and whether "
    "the query targets carried noise."
)
