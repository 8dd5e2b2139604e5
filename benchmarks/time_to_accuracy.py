"""Who reaches an error first: SNE against NFN-HNP, seconds of training.

Both train on the same networks of the same split, in this process, one after
the other; who goes first alternates from seed to seed. Counted is training
alone: compilation and evaluation are left out and printed beside. Both are
evaluated once per pass over the training part.

    python benchmarks/time_to_accuracy.py --out=docs/results/time.json
    python benchmarks/time_to_accuracy.py --nfn_epochs=20,40,80 --seeds=5

SNE is configured by a flagfile, `inr_frequency.flags` unless another is given;
flags after it override it. PyTorch and `nfn` are needed (`nfn_peer.py`).
"""

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from benchmarks import machine, nfn_peer, results, shapes
from benchmarks.races import Race, read_curve, summarize, text
from experiments.cli import options as options_lib
from experiments.tasks import members
from experiments.tasks import property as property_lib
from sne_jax.cli import config
from sne_jax.learning.evaluation import metrics
from sne_jax.learning.training import loop
from sne_jax.networks.checked import Checked, option

WARMUP_STEPS = 2  # The state of the second update is laid out as all later.


@dataclasses.dataclass(frozen=True, kw_only=True)
class RaceOptions(Checked):
  """What is compared, beyond the options of SNE.

  Attributes:
    threshold: validation MSE to reach, in squared target units.
    sne_steps: updates of SNE, which its schedule spans; 0: --num_steps.
    nfn_epochs: passes of the peer over the training part, which its schedule
      spans. With several, comma-separated, it trains once with each, and in
      every seed the first to reach the threshold counts: the choice is free for
      the peer.
    out: JSON file for all results; empty: none.
    peak_size: side of the matrix product that measures the machine, before and
      after.
  """

  threshold: float = option(0.64, above=0)
  sne_steps: int = option(0, least=0)
  nfn_epochs: str = "40"
  out: str = ""
  peak_size: int = option(2048, least=1)

  def __post_init__(self):
    super().__post_init__()
    _ = self.epochs

  @property
  def epochs(self) -> tuple[int, ...]:
    """The lengths of the peer's schedule."""
    try:
      epochs = tuple(int(part) for part in self.nfn_epochs.split(","))
    except ValueError as error:
      raise ValueError(
        f"nfn_epochs must be numbers between commas, got {self.nfn_epochs!r}"
      ) from error
    if min(epochs) < 1:
      raise ValueError(f"nfn_epochs must be at least 1, got {self.nfn_epochs}")
    return epochs


class SneRacer:
  """SNE as `run.py` trains it, with its clock read at every evaluation."""

  def __init__(self, options: options_lib.Options, data: members.Data):
    """Builds what trains."""
    self.options = options
    self._trainer = property_lib.trainer(options, data)
    self._test = data.parts["test"]

  def warm_up(self) -> float:
    """Compiles update and evaluation; returns the seconds that this took."""
    start = time.perf_counter()
    state, batch_fn = self._trainer.start(self.options.run.first_seed)
    for step in range(WARMUP_STEPS):
      state, logs = self._trainer.update(state, batch_fn(step))
    jax.block_until_ready(logs)
    self._trainer.evaluate(state.eval_params)
    self._test_mse(state.eval_params)
    return time.perf_counter() - start

  def race(self, seed: int) -> Race:
    """Trains with one seed; call `warm_up` before."""
    count = len(self._trainer.train)
    every = max(1, round(count / self.options.data.batch_size))
    schedule = dataclasses.replace(
      self.options.train,
      eval_every=every,
      log_every=every,  # With the record comes the clock.
      save_every=self.options.train.num_steps,
      patience=0,
    )
    state, batch_fn = self._trainer.start(seed)
    num_params = sum(x.size for x in jax.tree.leaves(state.params))
    result = loop.fit(
      state,
      self._trainer.update,
      batch_fn,
      self._trainer.evaluate,
      schedule,
    )
    curve = read_curve(result.history)
    steps = int(result.state.step)
    return Race(
      name=f"SNE, {steps} steps",
      seed=seed,
      curve=curve,
      validation_mse=curve[-1][1],
      test_mse=self._test_mse(result.state.eval_params),
      num_params=num_params,
      networks_per_second=steps
      * self.options.data.batch_size
      / max(result.seconds, 1e-9),
    )

  def num_compilations(self) -> int:
    """Programs of the update so far; it must not grow during a race."""
    update: Any = self._trainer.update
    return update._cache_size()

  def _test_mse(self, params) -> float:
    """Measures parameters on the test part."""
    predicted, _ = self._trainer.predict(jax.device_get(params), self._test)
    return metrics.mse(self._test.targets[:, 0], predicted[:, 0])


class NfnRacer:
  """NFN-HNP on the networks of an SNE racer, by `nfn_peer.train`."""

  def __init__(
    self,
    data: members.Data,
    train: Callable[..., nfn_peer.PeerResult] = nfn_peer.train,
  ):
    """Lays the networks out in one array.

    Args:
      data: the networks, by part.
      train: trains the peer; another one in tests.
    """
    sizes = [len(data.parts[part].numbers) for part in members.PARTS]
    ends = np.cumsum(sizes)
    parts = list(data.parts.values())
    self._train = train
    self._arrays: dict[str, Any] = {
      "weights": np.concatenate([np.stack(list(p.vectors)) for p in parts]),
      "targets": np.concatenate([p.targets[:, 0] for p in parts]),
    }
    for part, end, size in zip(members.PARTS, ends, sizes, strict=True):
      self._arrays[f"{part}_rows"] = np.arange(end - size, end)

  def warm_up(self) -> float:
    """Trains on four batches, thrown away; returns the seconds."""
    start = time.perf_counter()
    options = nfn_peer.PeerOptions(epochs=1)
    rows = self._arrays["train_rows"][: 4 * options.batch_size]
    self._train(**self._arrays | {"train_rows": rows}, options=options)
    return time.perf_counter() - start

  def race(self, seed: int, epochs: int) -> Race:
    """Trains with one seed and one length of the schedule."""
    options = nfn_peer.PeerOptions(epochs=epochs, seed=seed)
    result = self._train(**self._arrays, options=options)
    return Race(
      name=f"NFN-HNP, {epochs} epochs",
      seed=seed,
      curve=result.curve,
      validation_mse=result.curve[-1][1],
      test_mse=result.test_mse,
      num_params=result.num_params,
      networks_per_second=result.networks_per_second,
    )


def run_all(
  sne: Any, nfn: Any, seeds: Sequence[int], epochs: Sequence[int]
) -> list[tuple[Race, list[Race]]]:
  """Runs all trainings: for every seed, that of SNE and those of the peer."""
  pairs = []
  for place, seed in enumerate(seeds):
    peers: list[Race] = []
    ours = None
    for who in ("sne", "nfn") if place % 2 == 0 else ("nfn", "sne"):
      if who == "sne":
        ours = sne.race(seed)
        _announce(ours)
        continue
      for length in epochs:
        peers.append(nfn.race(seed, length))
        _announce(peers[-1])
    pairs.append((ours, peers))
  return pairs


def check(options: options_lib.Options) -> None:
  """Refuses what the peer cannot do too.

  Raises:
    ValueError: the comparison would not be one; the message says why.
  """
  names = options.run.target_names
  if len(names) != 1 or options.run.loss != "mse":
    raise ValueError(
      f"the peer predicts one target by loss mse, got targets {names} and loss"
      f" {options.run.loss}"
    )
  if jax.default_backend() != "cpu":
    raise ValueError(
      f"JAX runs on {machine.device_name()}, the peer on the CPU; set"
      " JAX_PLATFORMS=cpu to compare them"
    )


def set_torch_threads() -> int:
  """Gives PyTorch all cores, as JAX has, and returns their number.

  Raises:
    ValueError: PyTorch or `nfn` is missing.
  """
  try:
    torch = nfn_peer.import_torch()
  except ImportError as error:
    raise ValueError(str(error)) from error
  torch.set_num_threads(machine.num_cores())
  return machine.num_cores()


def compare(
  options: options_lib.Options, race: RaceOptions, nfn_train=None
) -> dict[str, Any]:
  """Runs the comparison and returns all of it; `nfn_train` replaces the peer.

  Raises:
    ValueError: of `check` and `set_torch_threads`.
    RuntimeError: something was compiled while the clock ran.
  """
  check(options)
  threads = None if nfn_train else set_torch_threads()
  if race.sne_steps:
    options = options.replaced(num_steps=race.sne_steps)
  data = members.gathered(options)
  sne = SneRacer(options, data)
  nfn = NfnRacer(data, nfn_train or nfn_peer.train)
  peak = [machine.matmul_peak(race.peak_size)]
  compiling = {"sne": sne.warm_up(), "nfn": nfn.warm_up()}
  print(
    f"before the clock runs: SNE compiles for {compiling['sne']:.1f} s, the"
    f" peer's first batches take {compiling['nfn']:.1f} s",
    flush=True,
  )
  programs = sne.num_compilations()
  first = options.run.first_seed
  seeds = range(first, first + options.run.seeds)
  pairs = run_all(sne, nfn, seeds, race.epochs)
  if sne.num_compilations() != programs:
    raise RuntimeError("SNE was compiled again while the clock ran")
  peak.append(machine.matmul_peak(race.peak_size))
  summary = summarize(pairs, race.threshold)
  print(text(pairs, summary))
  print(
    f"{machine.device_name()}; matrix product of {race.peak_size}:"
    f" {peak[0]:.1f} GFLOP/s before, {peak[1]:.1f} after"
  )
  return results.head() | {
    "summary": summary,
    "races": [
      dataclasses.asdict(r) for ours, peers in pairs for r in (ours, *peers)
    ],
    "compile_seconds": compiling,
    "torch_threads": threads,
    "peak_gflops": peak,
    "options": config.resolved(*options.groups(), race),
  }


def _announce(race: Race) -> None:
  print(
    f"{race.name}, seed {race.seed}: {race.curve[-1][0]:.1f} s, validation MSE"
    f" {race.validation_mse:.3f}",
    flush=True,
  )


def main(argv: list[str]) -> None:
  """Reads the flags, compares, and writes what was asked for."""
  del argv
  race: RaceOptions = config.from_flags(RaceOptions)
  result = compare(options_lib.from_flags(flags.FLAGS), race)
  if race.out:
    results.write(race.out, result)


if __name__ == "__main__":
  config.define_flags(
    *options_lib.CLASSES, RaceOptions, prefixes=options_lib.PREFIXES
  )
  if not any(a.lstrip("-").startswith("flagfile") for a in sys.argv[1:]):
    sys.argv.insert(1, f"--flagfile={shapes.FLAGFILE}")
  config.run_main(main)
