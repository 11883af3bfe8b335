"""A step that `image_step.py --program` wrote, on the device that JAX finds.

Compiles the program by XLA without TensorFlow, compares its results with those it came with and
times it. The optimizer's step and the drawing of episodes are no part of it. Prints one JSON line.
"""

import argparse
import json
import time

import jax
import numpy as np
from jax._src.lib import _jax, xla_client
from jax.extend.backend import get_backend

WARM_UP = 3


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", help="npz file")
    parser.add_argument("--repetitions", type=int, default=30)
    return parser.parse_args()


def compile_program(hlo: bytes):
    """Returns the executable of a serialised HLO module for the first device."""
    device = jax.devices()[0]
    options = xla_client.CompileOptions()
    options.num_replicas = options.num_partitions = 1
    options.device_assignment = xla_client.DeviceAssignment.create(np.array([[device.id]], "i4"))
    stablehlo = _jax.mlir.hlo_to_stablehlo(hlo)
    devices = xla_client.DeviceList((device,))
    return get_backend().compile_and_load(stablehlo, devices, options)


def main() -> None:
    a = parse_arguments()
    jax.config.update("jax_enable_x64", True)  # leaves the arguments' types as they are
    with np.load(a.program) as file:
        arrays = {name: file[name] for name in sorted(file.files)}
    start = time.perf_counter()
    executable = compile_program(arrays.pop("hlo").tobytes())
    compile_s = time.perf_counter() - start
    arguments = [jax.device_put(v) for k, v in arrays.items() if k.startswith("argument")]
    expected = [v for k, v in arrays.items() if k.startswith("result")]

    def step():
        results = executable.execute_sharded(arguments).disassemble_into_single_device_arrays()
        return jax.block_until_ready([shards[0] for shards in results])

    got, times = step(), []
    for _ in range(WARM_UP + a.repetitions):
        start = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - start))
    # The first two results are losses and outputs, the others the meta-gradient.
    gradient, of_tf = (
        np.concatenate([np.ravel(array).astype(float) for array in each[2:]])
        for each in (got, expected)
    )
    result = {"device": str(jax.devices()[0]), "version": jax.__version__, "compile_s": compile_s}
    result["loss_difference"] = float(np.max(np.abs(np.asarray(got[0]) - expected[0])))
    result["gradient_error"] = float(np.linalg.norm(gradient - of_tf) / np.linalg.norm(of_tf))
    result["ms"] = times[WARM_UP:]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
