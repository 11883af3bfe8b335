"""Task networks: Keras models whose forward pass takes its weights as an argument."""

from mmaml_tf.networks.conv_net import ConvNet
from mmaml_tf.networks.keras_network import KerasNetwork, as_task_network
from mmaml_tf.networks.mlp import MLP
from mmaml_tf.networks.task_network import ForwardPass, TaskNetwork

__all__ = ["MLP", "ConvNet", "ForwardPass", "KerasNetwork", "TaskNetwork", "as_task_network"]
