"""Multimodal meta-reinforcement learning. Importing it registers the environments."""

from mmaml_tf.extras import absent

if _absent := absent("rl", "gymnasium", "mujoco", "tensorflow_probability"):
    raise ImportError(_absent)

from mmaml_tf.names import moved
from mmaml_tf.rl import environments
from mmaml_tf.rl.encoders import TrajectoryEncoder
from mmaml_tf.rl.evaluation import PolicyReport
from mmaml_tf.rl.goal_modes import GoalModes
from mmaml_tf.rl.goals import Goals, GoalTasks, HeldOutGoals
from mmaml_tf.rl.learners import MultimodalProMP, MultiProMP, ProMP
from mmaml_tf.rl.policies import GaussianPolicy
from mmaml_tf.rl.policy_learner import PolicyLearner
from mmaml_tf.rl.trajectories import Trajectories

__all__ = [
    "GaussianPolicy",
    "GoalModes",
    "GoalTasks",
    "Goals",
    "HeldOutGoals",
    "MultiProMP",
    "MultimodalProMP",
    "PolicyLearner",
    "PolicyReport",
    "ProMP",
    "Trajectories",
    "TrajectoryEncoder",
    "environments",
]

__getattr__ = moved(__name__, evaluate="mmaml_tf.evaluate")
