"""What this machine can do, and what a function asks of it.

Timings mean little without the machine they were taken on: every benchmark
reports its time next to `matmul_peak`, the speed of a large matrix product
measured in the same minute, and next to the operations it needed (`dot_flops`).
"""

import functools
import math
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import partial_eval

from sne_jax.cli import environment


class Timing(NamedTuple):
  """Seconds of one call of a compiled function.

  Attributes:
    seconds: median over the repeats.
    fastest: the quickest repeat.
    slowest: the slowest repeat; far from `fastest` on a machine that is busy
      with other work, and then the measurement is worth little.
    compile_seconds: tracing and compilation, which `seconds` excludes.
    compiled: the compiled function, for `peak_memory`.
  """

  seconds: float
  fastest: float
  slowest: float
  compile_seconds: float
  compiled: Any


class Memory(NamedTuple):
  """Bytes of memory.

  Attributes:
    program: arguments, results and temporaries of one compiled program, as the
      compiler planned them. None where the backend does not tell.
    process: most resident memory that this process ever held, on the host.
    device: most memory ever in use on the first device. None on CPU, where
      device memory is host memory.
  """

  program: int | None
  process: int
  device: int | None


@functools.cache
def device_name() -> str:
  """Names the device that JAX computes on, for example `NVIDIA H200`."""
  device = jax.devices()[0]
  if device.platform != "cpu":
    return f"{jax.device_count()} x {device.device_kind}"
  return f"{environment.environment()['cpu']}, {num_cores()} cores"


def timed(
  fn: Callable[..., Any],
  *args: Any,
  repeats: int = 10,
  warmup: int = 1,
  max_bytes: float = math.inf,
  renew: Callable[[Any], tuple] | None = None,
) -> Timing:
  """Times a call of `fn`, compiled ahead of time.

  Args:
    fn: a function of arrays. One that is already jitted keeps its options.
    *args: what it is called with.
    repeats: timed calls, at least 1.
    warmup: calls before the timed ones, at least 0.
    max_bytes: a program that plans for more is compiled, but not run; its
      seconds are nan.
    renew: from the results of a call to the arguments of the next; where
      arguments are donated. Else every call has the same ones.

  Returns:
    The `Timing`.

  Raises:
    ValueError: `repeats` is below 1.
  """
  if repeats < 1:
    raise ValueError(f"repeats must be at least 1, got {repeats}")
  start = time.perf_counter()
  jitted: Any = fn if hasattr(fn, "lower") else jax.jit(fn)
  compiled = jitted.lower(*args).compile()
  compile_seconds = time.perf_counter() - start
  seconds = []
  if (peak_memory(compiled).program or 0) > max_bytes:
    seconds, repeats, warmup = [math.nan], 0, 0
  for number in range(warmup + repeats):
    start = time.perf_counter()
    results = jax.block_until_ready(compiled(*args))
    if number >= warmup:
      seconds.append(time.perf_counter() - start)
    args = renew(results) if renew else args
  return Timing(
    seconds=statistics.median(seconds),
    fastest=min(seconds),
    slowest=max(seconds),
    compile_seconds=compile_seconds,
    compiled=compiled,
  )


def matmul_peak(size: int = 2048, repeats: int = 9) -> float:
  """Measures the float32 matrix product: the speed to compare with.

  The product runs at JAX's default precision, as the encoders' do. On a GPU
  that may be less than 24 bits of mantissa.

  Args:
    size: side of the square matrices. Smaller ones do not fill the machine.
    repeats: timed calls.

  Returns:
    GFLOP/s, a multiplication and an addition counted as two, at the median.
  """
  key_left, key_right = jax.random.split(jax.random.key(0))
  left = jax.random.normal(key_left, (size, size))
  right = jax.random.normal(key_right, (size, size))
  timing = timed(jnp.dot, left, right, repeats=repeats, warmup=2)
  return 2 * size**3 / timing.seconds / 1e9


def dot_flops(fn: Callable[..., Any], *args: Any) -> int:
  """Counts the operations of all matrix products and convolutions of `fn`.

  Counted are `dot_general` and `conv_general_dilated`, two operations for each
  multiply-add, wherever they stand in the traced program: a scan counts its
  body `length` times, a `shard_map` its body once per device, a `cond` the
  most expensive branch. A `while_loop` has no known length and counts one
  turn. Results that nobody uses are not counted, since the compiler drops
  them. Elementwise work (softmax, norms, activations) is left out, and so is
  the zero padding of a convolution, which counts as data.

  Args:
    fn: a function of arrays; differentiate or map it before.
    *args: what it is called with; shapes (`jax.ShapeDtypeStruct`) will do.

  Returns:
    The number of floating-point operations.
  """
  jaxpr = jax.make_jaxpr(fn)(*args).jaxpr
  needed, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
  return _flops(needed)


def peak_memory(compiled: Any = None) -> Memory:
  """Reads how much memory a compiled program, and this process, need at most.

  Args:
    compiled: a compiled function, for example `Timing.compiled`; None leaves
      `Memory.program` out.

  Returns:
    The `Memory`.
  """
  unit = 1 if sys.platform == "darwin" else 1024
  process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
  device = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
  plan = None if compiled is None else compiled.memory_analysis()
  if plan is None:
    return Memory(None, process, device)
  program = (
    plan.argument_size_in_bytes
    + plan.output_size_in_bytes
    + plan.temp_size_in_bytes
    - plan.alias_size_in_bytes
  )
  return Memory(program, process, device)


def _flops(jaxpr: core.Jaxpr) -> int:
  """Operations of all equations of a program."""
  return sum(map(_equation_flops, jaxpr.eqns))


def _equation_flops(eqn: core.JaxprEqn) -> int:
  """Operations of one equation, whatever is nested in it included."""
  name = eqn.primitive.name
  if name == "dot_general":
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = eqn.invars[0].aval.shape
    return (
      2
      * math.prod(eqn.outvars[0].aval.shape)
      * math.prod(left[axis] for axis in contracted)
    )
  if name == "conv_general_dilated":
    # Of the kernel's axes all but the outgoing channels feed one output.
    kernel = eqn.invars[1].aval.shape
    out_axis = eqn.params["dimension_numbers"].rhs_spec[0]
    return (
      2
      * math.prod(eqn.outvars[0].aval.shape)
      * math.prod(kernel)
      // kernel[out_axis]
    )
  inner = [_flops(jaxpr) for jaxpr in _nested(eqn)]
  if not inner:
    return 0
  if name == "scan":
    return eqn.params["length"] * sum(inner)
  if name == "cond":
    return max(inner)
  if name == "shard_map":
    mesh = eqn.params["mesh"]
    # The parameter's name differs between the versions of JAX.
    axes = eqn.params.get("newly_manual_axes", eqn.params.get("manual_axes"))
    devices = math.prod(mesh.shape[axis] for axis in axes or mesh.axis_names)
    return devices * sum(inner)
  return sum(inner)


def _nested(eqn: core.JaxprEqn) -> list[core.Jaxpr]:
  """The programs among the parameters of an equation."""
  programs = []
  for value in eqn.params.values():
    for part in value if isinstance(value, tuple | list) else (value,):
      if isinstance(part, core.ClosedJaxpr):
        programs.append(part.jaxpr)
      elif isinstance(part, core.Jaxpr):
        programs.append(part)
  return programs


def num_cores() -> int:
  """Cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def main() -> None:
  """Prints what a reader of a measurement wants to know of the machine."""
  print(f"device: {device_name()}")
  print(f"jax: {jax.__version__}")
  print(f"float32 matrix product of 2048: {matmul_peak():.1f} GFLOP/s")


if __name__ == "__main__":
  main()
