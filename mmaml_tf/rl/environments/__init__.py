"""Goal-reaching environments with Gymnasium's interface. Importing it registers them."""

import gymnasium

from mmaml_tf.rl.goal_modes import SETTINGS

# Each environment's class, but for its ending, and its horizon.
_ENVIRONMENTS = {
    "point_mass": ("PointMass", 100),
    "reacher": ("Reacher", 50),
    "ant": ("Ant", 250),
}


def _register():
    for name, (prefix, horizon) in _ENVIRONMENTS.items():
        entry_point = f"{__name__}.{name}:{prefix}"
        gymnasium.register(
            SETTINGS[name].env_id,
            entry_point=f"{entry_point}Env",
            vector_entry_point=f"{entry_point}VectorEnv",
            max_episode_steps=horizon,
        )


_register()
