"""What differs between the reports of the three domains: names, measures, comparisons."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from pipelines import params as parameters


@dataclass(frozen=True)
class Method:
    """A row of the tables: its name, colour and marker."""

    label: str
    colour: str
    marker: str


#: in the order of the tables; the palette is that of Okabe and Ito, which people with
#: colour-blindness tell apart, and policy learners look like their counterparts
METHODS = {
    "maml": Method("MAML", "#E69F00", "o"),
    "multi_maml": Method("Multi-MAML", "#009E73", "s"),
    "lstm": Method("LSTM learner", "#CC79A7", "D"),
    "softmax": Method("MMAML (softmax)", "#56B4E9", "^"),
    "film": Method("MMAML (FiLM)", "#0072B2", "v"),
    "sigmoid": Method("MMAML (sigmoid)", "#D55E00", "P"),
    "film_layer1": Method("MMAML (FiLM, layer 1 only)", "#7A7A7A", "X"),
    "bayes": Method("Bayes-optimal", "#000000", "*"),
    "protonet": Method("Prototypical network", "#882255", "p"),
    "promp": Method("ProMP", "#E69F00", "o"),
    "multi_promp": Method("Multi-ProMP", "#009E73", "s"),
    "mmaml": Method("MMAML", "#0072B2", "v"),
}


def label(method: str) -> str:
    """Returns what tables and pictures call a method."""
    return METHODS[method].label if method in METHODS else method


@dataclass(frozen=True)
class Domain:
    """A domain of the report.

    Attributes:
        name: name of its directories.
        title: its heading.
        measures: by name, the array of the scores; the first is the headline.
        measure: what the headline is called.
        columns: what tells a set of tasks, which is named by these values joined with "-".
        better: 1 where more is better, -1 where less is.
        method: the method whose claims are judged.
        baselines: what it is compared with.
        pairs: (method, reference) of the paired differences, for those that were run.
        joined: the method that has one model a mode, joined here; None where none is.
        factor: what values are multiplied with in tables.
        digits: decimal places in tables, by the first part of a set's name.
        separator: what stands between method and set in the name of a run.
        history: columns of a training history, step first; `{steps}` is the run's inner steps.
    """

    name: str
    title: str
    measures: Mapping[str, str]
    measure: str
    columns: Sequence[str]
    better: int
    method: str
    baselines: Sequence[str]
    pairs: Sequence[tuple[str, str]]
    cells: Callable[[dict], list[tuple[str, str]]]
    settings: Callable[[dict, str], dict]
    joined: str | None = None
    factor: float = 1.0
    digits: Mapping[str, int] = field(default_factory=dict)
    separator: str = "-"
    history: Sequence[str] = ("loss",)

    @property
    def headline(self) -> str:
        """The measure that the tables compare."""
        return next(iter(self.measures))

    def split(self, name: str) -> tuple[str, str]:
        """Returns method and set of a run's name."""
        if self.separator == "_":
            method, _, tasks = name.rpartition("_")
        else:
            method, _, tasks = name.partition("-")
        return method, tasks

    def run_name(self, method: str, tasks: str) -> str:
        """Returns the name of a run; see `split`."""
        return f"{method}{self.separator}{tasks}"

    def values(self, tasks: str) -> dict[str, str]:
        """Returns what tells a set of tasks by column."""
        return dict(zip(self.columns, tasks.split("-", len(self.columns) - 1), strict=True))

    def group(self, tasks: str) -> str:
        """Returns what the members of a joined method share with its set: all but the modes."""
        return "-".join(v for name, v in self.values(tasks).items() if name != "modes")

    def set_title(self, tasks: str) -> str:
        """Returns what tables call a set of tasks."""
        values = self.values(tasks)
        modes = values.pop("modes")
        parts = [modes_title(modes), *map(group_title, values.values())]
        return ", ".join(parts if self.columns[0] == "modes" else parts[::-1])

    def text(self, mean: float, spread: float | None, tasks: str, sign: str = "") -> str:
        """Returns a mean and its spread as tables have them."""
        digits = self.digits.get(tasks.partition("-")[0], self.digits.get("", 3))
        shown = f"{self.factor * mean:{sign}.{digits}f}"
        return shown if spread is None else f"{shown} ± {self.factor * spread:.{digits}f}"


def group_title(name: str) -> str:
    """Returns what a protocol or an environment is called."""
    protocol = re.fullmatch(r"(\d+)w(\d+)s", name)
    return "{}-way {}-shot".format(*protocol.groups()) if protocol else name.replace("_", " ")


def modes_title(modes: str) -> str:
    """Returns what a mode set is called: the published ones after their size."""
    return f"{modes} modes" if modes.isdecimal() else modes


def _regression_cells(params):
    names = parameters.get(params, "regression.evaluated")
    cells = [REGRESSION.split(name) for name in names]
    for (method, tasks), name in zip(cells, names, strict=True):
        size = len(parameters.regression_cell(params, name)["modes"])
        if method not in METHODS or tasks != str(size):
            raise parameters.ParameterError(
                f"regression.evaluated names {name!r}; expected <kind>_{size} for a cell of "
                f"{size} modes, with a kind among {sorted(METHODS)}."
            )
    return cells


def _image_cells(params):
    trained = parameters.get(params, "classification.trained")
    wanted = parameters.get(params, "classification.mode_sets")
    cells = []
    for modes, protocol in product(trained["mode_sets"], trained["protocols"]):
        methods = [method for method in METHODS if method in trained["methods"]]
        if set(wanted[modes]) <= set(trained["members"]):
            methods.append("multi_maml")
        cells += [(method, f"{modes}-{protocol}") for method in methods]
    return cells


def _policy_cells(params):
    trained = parameters.get(params, "reinforcement.trained")
    methods = [*trained["methods"], *(["multi_promp"] if trained["members"] else [])]
    return [(method, tasks) for tasks in trained["sets"] for method in methods if method in METHODS]


def _against(methods, references):
    return [(m, reference) for reference in references for m in methods if m != reference]


_FUNCTIONS = "maml", "multi_maml", "lstm", "softmax", "film", "sigmoid", "film_layer1", "bayes"
_IMAGES = "maml", "multi_maml", "film", "protonet"

REGRESSION = Domain(
    "regression",
    "Few-shot regression",
    {"noisy": "losses_noisy", "noise_free": "losses_noise_free"},
    "mean squared error",
    ("modes",),
    -1,
    "film",
    ("maml", "multi_maml"),
    _against(_FUNCTIONS, ("maml", "film")),
    _regression_cells,
    parameters.regression_cell,
    separator="_",
)
CLASSIFICATION = Domain(
    "classification",
    "Few-shot image classification",
    {"accuracy": "accuracy"},
    "accuracy in %",
    ("modes", "protocol"),
    1,
    "film",
    ("maml", "multi_maml"),
    _against(_IMAGES, ("maml", "film")),
    _image_cells,
    parameters.classification_cell,
    joined="multi_maml",
    factor=100.0,
    digits={"": 1},
    history=("accuracy", "validation_score"),
)
REINFORCEMENT = Domain(
    "reinforcement",
    "Meta-reinforcement learning",
    {"return": "return"},
    "return",
    ("environment", "modes"),
    1,
    "mmaml",
    ("promp", "multi_promp"),
    (("mmaml", "promp"), ("mmaml", "multi_promp"), ("multi_promp", "promp")),
    _policy_cells,
    parameters.reinforcement_cell,
    joined="multi_promp",
    digits={"point_mass": 1, "reacher": 2, "ant": 0},
    history=("return_after_{steps}",),
)
DOMAINS = {domain.name: domain for domain in (REGRESSION, CLASSIFICATION, REINFORCEMENT)}
