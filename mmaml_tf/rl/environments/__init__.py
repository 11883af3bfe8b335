"""Goal-reaching environments with Gymnasium's interface. Importing it registers them."""

import gymnasium

from mmaml_tf.rl.goals import SETTINGS

_HORIZONS = {"point_mass": 100}
_CLASSES = {"point_mass": "PointMass"}


def _register():
    for name, horizon in _HORIZONS.items():
        entry_point = f"{__name__}.{name}:{_CLASSES[name]}"
        gymnasium.register(
            SETTINGS[name].env_id,
            entry_point=f"{entry_point}Env",
            vector_entry_point=f"{entry_point}VectorEnv",
            max_episode_steps=horizon,
        )


_register()
