"""Seeds: every part draws from a stream of its own."""

import hashlib
import json

from mmaml_tf.arguments import whole_number


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Returns a seed for one purpose.

    Two purposes have unrelated streams, also where one begins with the other: the purpose's
    length is part of what is hashed. Name the part that draws first, so that parts which are
    given the same seed do not start alike:

    >>> derive_seed(0, "MLP", "kernel", 0) == derive_seed(0, "FiLM", "kernel", 0)
    False

    Args:
        seed: the seed that a user gave.
        *purpose: what the derived seed is for, names and numbers from the general to the special.

    Returns:
        A whole number of 31 bits.

    Raises:
        ValueError: for a seed, or a number of the purpose, that is not whole.
    """
    numbers = (p if isinstance(p, str) else whole_number("seed", p, None) for p in purpose)
    text = json.dumps([whole_number("seed", seed, None), *numbers])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
