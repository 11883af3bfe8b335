"""The cells of the reinforcement-learning table: from parameters to goals and learners."""

import keras

import mmaml_tf as mm
from mmaml_tf import rl
from mmaml_tf.rl.rollouts import Rollouts
from mmaml_tf.seeds import derive_seed
from pipelines import params as parameters
from pipelines.cells import Cell


class PolicyCell(Cell):
    """One trained policy learner of the reinforcement-learning table."""

    domain = "reinforcement"
    trained_by = ("iterations", "log_every", "tasks", "rollouts", "outer_learning_rate", "xla")

    @property
    def batch(self):
        """See `Cell.batch`."""
        return self.schedule["tasks"]

    @property
    def modes(self):
        """See `Cell.modes`."""
        return self.tasks().modes

    def tasks(self) -> rl.GoalTasks:
        """See `Cell.tasks`."""
        return rl.GoalTasks(self.task_settings["environment"], self.task_settings["modes"])

    def rollouts(self, number: int) -> Rollouts:
        """Returns the environment to act in.

        Args:
            number: rollouts of a task.
        """
        return Rollouts(self.tasks().env_id, number, self.settings["action_range"])

    def learner(self):
        """See `Cell.learner`."""
        s = self.settings
        rollouts = self.rollouts(self.schedule["rollouts"])
        policy = rl.GaussianPolicy(
            rollouts.action_size, s["hidden"], seed=derive_seed(self.seed, "network")
        )
        inner_loop = mm.InnerLoop(
            s["inner_steps"], s["inner_learning_rate"], update=s.get("update")
        )
        options = ("clip", "kl_penalty", "epochs", "discount", "gae_lambda", "outer_clip")
        common = {name: s[name] for name in (*options, "on_nonfinite")} | {"modes": self.modes}
        if s["method"] == "ProMP":
            learner = rl.ProMP(policy, inner_loop=inner_loop, **common)
        elif s["method"] == "MultimodalProMP":
            encoder = rl.TrajectoryEncoder(
                s["encoder_units"], s["encoder_window"], seed=derive_seed(self.seed, "encoder")
            )
            modulation = mm.modulation.FiLM(
                shift=s["shift"],
                seed=derive_seed(self.seed, "modulation"),
                kernel_initializer="glorot_uniform",
                bias_initializer="zeros",
            )
            learner = rl.MultimodalProMP(
                policy, encoder=encoder, modulation=modulation, inner_loop=inner_loop, **common
            )
        else:
            raise parameters.ParameterError(
                f"the method of cell {self.name!r} is {s['method']!r}; expected ProMP or "
                "MultimodalProMP."
            )
        optimizer = keras.optimizers.Adam(self.schedule["outer_learning_rate"], epsilon=1e-8)
        learner.compile(optimizer, rollouts, jit_compile=self.schedule["xla"])
        learner.build_for(self.tasks().sample(1, self.seed))
        return learner


def cell(params: dict, scale: str, name: str, seed: int) -> PolicyCell:
    """Returns a cell of params.yaml, checked."""
    settings = parameters.reinforcement_cell(params, name)
    schedule = dict(parameters.reinforcement_scale(params, scale))
    method, environment, modes = name.split("-")
    members = schedule.pop("member_iterations")
    iterations = members if method == "single" else schedule["iterations"]
    schedule["iterations"] = iterations[environment]
    for one_each in ("outer_learning_rate", "tasks_per_mode", "evaluation_rollouts"):
        schedule[one_each] = schedule[one_each][environment]
    if (rate := settings.pop("outer_learning_rate")) is not None:
        schedule["outer_learning_rate"] = rate
    tasks = {
        "environment": environment,
        "modes": int(modes) if modes.isdigit() else [modes],
    }
    return PolicyCell(name, scale, seed, settings, schedule, tasks, params["threads"])
