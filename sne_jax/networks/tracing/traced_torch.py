"""A PyTorch model, traced: which axes move together is known, not guessed.

`torch.export` runs the model on an example without numbers and lists its
operations; these are played on a tape. What has no entry in
`torch_operations.py` claims no permutation, and is named in `guesses`.

Torch is an extra, imported here only.

Dimensions: `P` weights of a network.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

try:
  import torch  # pyright: ignore[reportMissingImports]
except ImportError as error:
  raise ImportError(
    "tracing a PyTorch model takes PyTorch: pip install torch"
  ) from error

from sne_jax.networks.inference.assembly import assemble
from sne_jax.networks.inference.inferred import InferredNetwork
from sne_jax.networks.tracing import activations, torch_operations
from sne_jax.networks.tracing.tape import Tape, Value


def trace(
  model: torch.nn.Module,
  *inputs: Any,
  kwargs: Mapping[str, Any] | None = None,
) -> InferredNetwork:
  """Finds the spec of a model by running it on example inputs.

  Args:
    model: is traced as it is at inference, and left as it was.
    *inputs: as the model takes them.
    kwargs: the same, by name.

  Raises:
    ValueError: torch cannot trace the model, or no weight has a part in its
      output.
  """
  modes = {m: m.training for m in model.modules()}
  model.eval()
  try:
    program = torch.export.export(model, inputs, dict(kwargs or {}))
  except Exception as error:  # noqa: BLE001 - any of torch's, said in one line
    first = str(error).strip().splitlines()[:1]
    raise ValueError(
      f"torch cannot trace {type(model).__name__}: {''.join(first)}. Save its"
      " state_dict and go by the names of its tensors instead"
    ) from error
  finally:
    for module, mode in modes.items():
      module.training = mode
  tied = _tied(model)
  player = _Player(program, tied, set(model.state_dict()))
  player.play()
  spec, sources = assemble(player.tape)
  used = {source.name for source in sources}
  left_out = {}
  for name, tensor in model.state_dict().items():
    if name in used or name in tied:
      continue
    kept = name in dict(model.named_parameters())
    left_out[name] = (
      "has no part in the output of the traced model"
      if kept
      else f"a buffer of {tensor.dtype}, which is no weight".replace(
        "torch.", ""
      )
    )
  return InferredNetwork(
    spec,
    sources,
    left_out,
    {n: o for n, o in tied.items() if o in used},
    player.tape.unclaimed(),
    how="traced",
  )


def tensors_of(model: torch.nn.Module) -> dict[str, np.ndarray]:
  """Returns a model's state dict as numpy arrays; bfloat16 as float32."""

  def array(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point() and tensor.dtype not in _NUMPY:
      tensor = tensor.float()
    return tensor.numpy()

  return {name: array(tensor) for name, tensor in model.state_dict().items()}


_NUMPY = (torch.float16, torch.float32, torch.float64)


def make_forward(
  model: torch.nn.Module,
) -> Callable[[Mapping[str, np.ndarray], Any], np.ndarray]:
  """Returns `forward(tensors, inputs)` for `permutation_check`.

  Tensors that it is not given stay the model's own. `inputs` is what the
  model takes, or a tuple of that.
  """

  @torch.no_grad()
  def forward(tensors: Mapping[str, np.ndarray], inputs: Any) -> np.ndarray:
    state = {k: torch.from_numpy(np.array(v)) for k, v in tensors.items()}
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    was = model.training
    model.eval()
    try:
      output = torch.func.functional_call(model, state, args, tie_weights=False)
    finally:
      model.train(was)
    return output.numpy()

  return forward


def _tied(model: torch.nn.Module) -> dict[str, str]:
  """Returns the names that share another's numbers, and that name."""
  first: dict[tuple[int, tuple[int, ...]], str] = {}
  tied = {}
  for name, tensor in model.state_dict().items():
    key = (tensor.data_ptr(), tuple(tensor.shape))
    if tensor.numel() and key in first:
      tied[name] = first[key]
    first.setdefault(key, name)
  return tied


class _Player:
  """Plays an exported program on a tape."""

  def __init__(self, program, tied: Mapping[str, str], stored: set[str]):
    self.tape = Tape()
    self._program = program
    self._tied = tied
    self._stored = stored
    self._known: dict[Any, Any] = {}

  def play(self) -> None:
    """Plays the whole program."""
    for node in self._program.graph.nodes:
      if node.op == "placeholder":
        self._known[node] = functools.partial(self._placeholder, node)
      elif node.op == "get_attr":
        shapes = _shapes(node)
        self._known[node] = self.tape.constant(shapes[0]) if shapes else None
      elif node.op == "call_function":
        self._known[node] = self._call(node)
      elif node.op == "output":
        user = [
          spec.arg.name
          for spec in self._program.graph_signature.output_specs
          if spec.kind.name == "USER_OUTPUT" and hasattr(spec.arg, "name")
        ]
        for output in node.args[0]:
          if getattr(output, "name", None) in user:
            self.tape.output(self._value(output))

  def _placeholder(self, node) -> Value | None:
    """An input, parameter or buffer; made when it is first used."""
    signature = self._program.graph_signature
    shapes = _shapes(node)
    if not shapes:
      return None
    name = signature.inputs_to_parameters.get(node.name)
    if name is not None:
      return self.tape.weight(self._tied.get(name, name), shapes[0])
    name = signature.inputs_to_buffers.get(node.name)
    if name is not None:
      if name in self._stored and self._is_statistic(node):
        return self.tape.weight(self._tied.get(name, name), shapes[0])
      return self.tape.constant(shapes[0])
    if node.name in signature.inputs_to_lifted_tensor_constants:
      return self.tape.constant(shapes[0])
    return self.tape.input(shapes[0])

  def _is_statistic(self, node) -> bool:
    """Whether a buffer is a running mean or variance."""
    return any("batch_norm" in str(user.target) for user in node.users)

  def _value(self, item: Any) -> Any:
    if isinstance(item, list | tuple):
      return [self._value(i) for i in item]
    if not isinstance(item, torch.fx.Node):
      return item
    if isinstance(self._known[item], functools.partial):
      self._known[item] = self._known[item]()
    return self._known[item]

  def _call(self, node) -> Any:
    """Plays one operation."""
    target = node.target
    args = [self._value(a) for a in node.args]
    kwargs = {k: self._value(v) for k, v in node.kwargs.items()}
    if getattr(target, "__name__", "") == "getitem":
      sequence = args[0]
      return sequence[args[1]] if isinstance(sequence, list) else sequence
    shapes = _shapes(node)
    name = getattr(target, "__name__", str(target)).split(".")[0]
    values = torch_operations.values_in([*args, *kwargs.values()])
    if not shapes:
      return None
    plain = name.rstrip("_") or name
    numbers = plain in ("add", "sub") and any(
      isinstance(a, int | float) for a in node.args[:2]
    )
    act = activations.TORCH.get(plain)
    if act is None:
      act = activations.of_operation(plain, values, numbers)
    if act is not None:
      self.tape.note(values, act)
    operation = torch_operations.find(name)
    outputs = None
    if operation is not None:
      outputs = operation(self.tape, shapes, *args, **kwargs)
    elif torch.Tag.pointwise in getattr(target, "tags", ()) and values:
      outputs = torch_operations.place_by_place(
        self.tape, shapes, plain, values
      )
    if outputs is None:
      many = self.tape.unknown(values, shapes, name)
      outputs = many if isinstance(node.meta["val"], list | tuple) else many[0]
    return outputs


def _shapes(node) -> list[tuple[int, ...]]:
  """Shapes of what a node gives; numbers that are no tensors have none."""
  values = node.meta.get("val")
  values = values if isinstance(values, list | tuple) else [values]
  return [tuple(int(n) for n in v.shape) for v in values if hasattr(v, "shape")]
