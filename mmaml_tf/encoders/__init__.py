"""Task encoders: support set -> task embedding `[T, E]`.

Any Keras layer whose call takes (support_x, support_y) is one, and so is a functional model of both
or a sequential one of support_x.
"""

from mmaml_tf.encoders.attention import AttentionEncoder
from mmaml_tf.encoders.image import ImageEncoder
from mmaml_tf.encoders.reconstruction import Reconstruction
from mmaml_tf.encoders.running import run_encoder
from mmaml_tf.encoders.sequence import SequenceEncoder

__all__ = ["AttentionEncoder", "ImageEncoder", "Reconstruction", "SequenceEncoder", "run_encoder"]
