"""What an evaluation found: values of each task, means, and confidence intervals."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit


class Estimate(NamedTuple):
    """A mean over tasks and the half-width of its 95 % confidence interval.

    No value is left out: where that of a task is not finite, neither are mean and interval.

    Attributes:
        mean: mean over n tasks; over several modes the unweighted mean of the modes' means.
        ci95: half-width by Student's t; the unit of independence is the task. NaN where a mode
            has a single task.
        n: number of tasks.
        nonfinite: how many of their values are not finite.
    """

    mean: float
    ci95: float
    n: int
    nonfinite: int = 0

    @classmethod
    def of(cls, values: ArrayLike, mode: ArrayLike | None = None) -> "Estimate":
        """Estimates the mean of `[n]` per-task values.

        Args:
            values: `[n]`.
            mode: `[n]` mode of each task. The number of tasks of a mode is fixed, so that
                differences between modes are no part of the error (stratified sampling). The
                degrees of freedom are those of Welch and Satterthwaite.
        """
        values = np.asarray(values, np.float64)
        mode = np.zeros(len(values)) if mode is None else np.asarray(mode)
        strata = [values[mode == index] for index in np.unique(mode)]
        nonfinite = int(np.sum(~np.isfinite(values)))
        if not strata:
            return cls(np.nan, np.nan, 0)
        with np.errstate(invalid="ignore"):  # infinities of both signs
            mean = float(np.mean([stratum.mean() for stratum in strata]))
        if nonfinite or min(map(len, strata)) < 2:
            return cls(mean, np.nan, len(values), nonfinite)
        variances = np.array([stratum.var(ddof=1) / len(stratum) for stratum in strata])
        freedom = np.array([len(stratum) - 1 for stratum in strata])
        total = variances.sum()
        together = total**2 / np.sum(variances**2 / freedom) if total else freedom.sum()
        error = np.sqrt(total) / len(strata)
        return cls(mean, float(stdtrit(together, 0.975) * error), len(values))

    def __str__(self):
        rest = f" ({self.nonfinite} of {self.n} not finite)" if self.nonfinite else ""
        return f"{self.mean:.3f} ± {self.ci95:.3f}{rest}"


@dataclass(frozen=True, eq=False)
class Report:
    """What was measured on each held-out task, with one learner.

    Attributes:
        measures: by name, `[C, N]` values of N tasks after each of `curve` inner steps: the loss
            against each kind of target, or accuracy and loss of a classification, and the metrics
            that the learner was compiled with. The first is the headline.
        mode: `[N]` mode of each task.
        modes: names of the modes.
        steps: the number of inner steps that counts as adapted.
        curve: the C numbers of inner steps that were measured.
        digest: digest of the tasks, or None where it is not known.
    """

    measures: dict[str, np.ndarray]
    mode: np.ndarray
    modes: tuple[str, ...]
    steps: int
    curve: tuple[int, ...]
    digest: str | None = None

    def estimate(
        self, mode: str | None = None, steps: int | None = None, measure: str | None = None
    ) -> Estimate:
        """Returns the mean over a mode (None: over all modes) after some inner steps."""
        return self._estimate(self.values(mode, steps, measure), mode)

    def values(
        self, mode: str | None = None, steps: int | None = None, measure: str | None = None
    ) -> np.ndarray:
        """Returns the values `[n]` of a mode's tasks (None: of all) after some inner steps.

        Raises:
            ValueError: for a number of steps, a measure or a mode that was not measured.
        """
        measure = next(iter(self.measures)) if measure is None else measure
        steps = self.steps if steps is None else steps
        if isinstance(steps, bool) or steps not in self.curve:
            raise ValueError(f"steps={steps} was not measured; measured were {self.curve}.")
        if measure not in self.measures:
            raise ValueError(
                f"measure={measure!r} was not measured; measured were {tuple(self.measures)}."
            )
        if mode is not None and mode not in self.modes:
            raise ValueError(f"mode={mode!r} was not measured; the modes are {self.modes}.")
        values = self.measures[measure][self.curve.index(steps)]
        return values if mode is None else values[self.mode == self.modes.index(mode)]

    def difference(
        self, other: "Report", mode: str | None = None, measure: str | None = None
    ) -> Estimate:
        """Returns the mean paired difference self − other after adaptation.

        A report without digest is taken to be of the same tasks if it has as many of each mode.

        Raises:
            ValueError: when the two were not evaluated on the same tasks.
        """
        if not isinstance(other, Report):
            raise ValueError(f"a paired difference needs a Report, got a {type(other).__name__}.")
        same = self.modes == other.modes and np.array_equal(self.mode, other.mode)
        if not same or (self.digest != other.digest and None not in (self.digest, other.digest)):
            raise ValueError(
                "the two reports are of different tasks, and a paired difference needs the same "
                "held-out tasks; evaluate both learners on one set."
            )
        own, others = (r.values(mode, measure=measure) for r in (self, other))
        with np.errstate(invalid="ignore"):  # of infinities
            return self._estimate(own - others, mode)

    def _estimate(self, values, mode):
        return Estimate.of(values, self.mode if mode is None else None)

    def __str__(self):
        steps = [f"after {steps} steps" for steps in (self.curve[0], self.steps)]
        rows = [f"{'mode':12s} {steps[0]:>18s} {steps[1]:>18s}"]
        for mode in (*self.modes, None):
            before, after = self.estimate(mode, self.curve[0]), self.estimate(mode)
            rows.append(f"{mode or 'overall':12s} {before!s:>18s} {after!s:>18s}")
        for measure in self.measures:
            found = self.estimate(measure=measure)
            if found.nonfinite:
                rows.append(
                    f"{measure} after {self.steps} steps: {found.nonfinite} of {found.n} tasks are "
                    "not finite, hence no mean over all."
                )
        return "\n".join(rows)
