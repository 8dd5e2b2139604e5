"""All options of a run of `run.py`: its own, and those of the library.

Each class is told by flags of its own; those of encoders other than SNE by
`--encoder_option` (`encoder_options.py`).
"""

import dataclasses
import os
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from absl import flags

from experiments.cli.editing_options import EditingOptions
from experiments.cli.mask_options import MaskOptions
from experiments.cli.run_options import RunOptions
from experiments.cli.sampling_options import SamplingOptions
from sne_jax.cli import config, encoder_options, help_text
from sne_jax.cli.encoder_options import EncoderOptions
from sne_jax.cli.own import OwnOptions
from sne_jax.encoders import table
from sne_jax.encoders.sne.options import SNEOptions
from sne_jax.learning.data.pipeline import DataOptions
from sne_jax.learning.generative.generation import GenerationOptions
from sne_jax.learning.objectives.invariance import InvarianceOptions
from sne_jax.learning.selfsup.contrast import ContrastOptions
from sne_jax.learning.selfsup.methods import PretrainOptions
from sne_jax.learning.selfsup.views import ViewOptions
from sne_jax.learning.training.loop import TrainOptions
from sne_jax.learning.training.optimizers import OptimizerOptions
from sne_jax.networks.chunking import ChunkOptions
from sne_jax.zoo.inrs.generate import InrZooOptions

PREFIXES: dict[type, str] = {
  InrZooOptions: "zoo_",
  PretrainOptions: "pretrain_",
  ViewOptions: "view_",
  ContrastOptions: "loss_",
  SamplingOptions: "sample_",
  GenerationOptions: "sample_",
  EditingOptions: "edit_",
  MaskOptions: "mask_",
}
TOPICS = {
  "Networks of your own": (
    *("networks", "table", "group_column", "file_column"),
    *("skip_unreadable", "overrides", "zoo_out"),
  ),
  "What to run": (
    *("zoo", "workdir", "targets", "encoder", "seeds", "loss"),
    *("target_scale", "test_zoos", "snapshots", "title"),
    *("devices", "compilation_cache", "references", "image_counts", "maps"),
  ),
  "Networks": (
    *("train_members", "validation_members", "test_members", "train_share"),
    *("split", "split_seed", "first_seed", "data_dir", "zoo_num_networks"),
    *("zoo_seed", "zoo_hidden", "zoo_layers"),
  ),
  "Encoder": (
    *("width", "heads", "chunk_size", "linear_rule", "conv_rule"),
    *("chunk_function", "layer_function", "network_function"),
    *("index_features", "identifiers", "identifier_dim", "weight_scale"),
    *("dropout", "chunk_tile", "head_width", "head_dropout"),
    *("head_collapsed", "head_collapsed_within"),
    *("encoder_option", "encoder_file"),
  ),
  "Training": (
    *("num_steps", "batch_size", "learning_rate", "optimizer", "schedule"),
    *("weight_decay", "warmup_fraction", "clip_norm", "ema_decay"),
    "probe_rate",
    *("invariance_weight", "monitor", "patience", "micro_batches"),
    *("log_every", "eval_every", "save_every", "wandb"),
  ),
  "Augmentation": (
    *("augment_permutation", "augment_signs", "augment_scales"),
    *("augment_pi_shifts", "augment_noise", "augment_mask"),
    *("augment_quantile", "augment_translate", "augment_rotate"),
    *("augment_zoom", "augment_mixup", "assume_activation"),
  ),
  "Comparisons": (
    *("matrix", "encoders", "rates", "search_share", "variants", "only"),
  ),
  "Without labels": (
    *("pretrain", "probes", "init_from", "pretrain_window", "pretrain_align"),
    *("pretrain_projection", "view_relative_noise", "view_erase"),
    *("loss_gamma", "loss_temperature"),
  ),
  "Sampled networks": (
    *("sample_from", "sample_methods", "sample_networks", "sample_epochs"),
    *("sample_images", "sample_bandwidths", "sample_mode"),
  ),
  "Editing": (
    *("edit", "edit_images", "edit_size", "edit_scale", "edit_floor"),
  ),
  "Winning tickets": ("mask", "mask_positive_weight"),
}
"""What `run.py --help` shows; `--helpfull` shows all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """All options of a run, by class."""

  run: RunOptions
  zoo: InrZooOptions
  chunk: ChunkOptions
  sne: SNEOptions
  data: DataOptions
  invariance: InvarianceOptions
  optimizer: OptimizerOptions
  train: TrainOptions
  encoders: EncoderOptions
  pretrain: PretrainOptions
  view: ViewOptions
  contrast: ContrastOptions
  sampling: SamplingOptions
  generation: GenerationOptions
  editing: EditingOptions
  masks: MaskOptions

  def replaced(self, **changes: Any) -> "Options":
    """Returns the options with some changed, by names of flags.

    Options of encoders go by their names; `encoder_option` adds to those that
    are set.

    Raises:
      ValueError: no option is called so.
    """
    parts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    encoders: EncoderOptions = parts["encoders"]
    known = encoder_options.known()
    set_now = {n: changes.pop(n) for n in list(changes) if n in known}
    more = EncoderOptions(
      encoder_option=tuple(changes.pop("encoder_option", ()))
    )
    parts["encoders"] = encoders.replaced(more.values | set_now)
    for name, part in parts.items():
      prefix = PREFIXES.get(type(part), "")
      mine = {
        f.name: changes.pop(prefix + f.name)
        for f in dataclasses.fields(part)
        if prefix + f.name in changes
      }
      parts[name] = dataclasses.replace(part, **mine) if mine else part
    if changes:
      raise ValueError(f"no option is called {', '.join(sorted(changes))}")
    return Options(**parts)

  @property
  def workdir(self) -> str:
    """Folder of the run."""
    return self.run.workdir

  @property
  def title(self) -> str:
    """What the run is called."""
    return self.run.title

  @property
  def seeds(self) -> range:
    """Seeds of its trainings."""
    first = self.run.first_seed
    return range(first, first + self.run.seeds)

  @property
  def num_steps(self) -> int:
    """Steps of a training."""
    return self.train.num_steps

  @property
  def eval_every(self) -> int:
    """Steps between two evaluations."""
    return self.train.eval_every

  def encoders_in_use(self) -> tuple[str, ...]:
    """Returns the encoders that take part."""
    return self.run.encoders_in_use()

  def of_trial(
    self, folder: os.PathLike, title: str, changes: Mapping[str, Any]
  ) -> "Options":
    """Returns the options of a trial of a sweep; see `replaced`."""
    mine = {"title": title, "workdir": str(folder), "references": False}
    return self.replaced(**changes, **mine)

  def encoder_options(self, name: str) -> Any:
    """Returns the options of the encoder of a name.

    Raises:
      ValueError: there is no such encoder.
    """
    row = table.row(name)
    return self.sne if row.options is SNEOptions else self.encoders.of(row)

  def groups(self, encoders: Iterable[str] = ()) -> tuple[Any, ...]:
    """Returns the option objects, in their order.

    All options of the encoders that take part are among them, set or not, and
    none of others: those decide nothing.

    Args:
      encoders: encoders that take part; (): those that the run names.
    """
    parts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    names = tuple(encoders) or self.run.encoders_in_use()
    return tuple((parts | {"encoders": self.encoders.complete(names)}).values())

  def warn_of_unused(self, encoders: Iterable[str] = ()) -> None:
    """Logs the options that are set of encoders which take no part.

    They are no error: flagfiles of comparisons set those of many encoders.
    """
    names = tuple(encoders) or self.run.encoders_in_use()
    self.encoders.warn_of_unused(names, self.run.encoder)


CLASSES: tuple[type, ...] = tuple(
  typing.get_type_hints(Options)[field.name]
  for field in dataclasses.fields(Options)
)


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the flags of a run."""
  classes = (*CLASSES, OwnOptions)
  config.define_flags(*classes, prefixes=PREFIXES, flag_values=flag_values)


def parsed(flagfile: str | os.PathLike) -> flags.FlagValues:
  """Returns the flags of a run as a flagfile, and those it names, set them."""
  values = flags.FlagValues()
  define_flags(values)
  config.parse(["run.py", f"--flagfile={flagfile}"], values)
  return values


def from_flags(
  flag_values: flags.FlagValues = flags.FLAGS,
  changes: Mapping[str, Any] | None = None,
) -> Options:
  """Returns the options that parsed flags say.

  Files of encoders are run first.

  Args:
    flag_values: the flags.
    changes: values by name of the flag, or of an option of an encoder, in the
      place of what the flags say.

  Raises:
    ValueError: options that cannot be, or do not go together.
  """
  changes = dict(changes or {})
  encoder_options.load_files(str(flag_values["encoder_file"].value))
  known = encoder_options.known()
  of_encoders = {n: changes.pop(n) for n in list(changes) if n in known}
  names = [field.name for field in dataclasses.fields(Options)]
  parts = {
    name: config.from_flags(
      cls,
      prefix=PREFIXES.get(cls, ""),
      flag_values=flag_values,
      changes=changes,
    )
    for name, cls in zip(names, CLASSES, strict=True)
  }
  options = Options(**parts)
  options = options.replaced(**of_encoders) if of_encoders else options
  words = f"{options.run.zoo},{options.run.test_zoos}"
  if options.zoo != InrZooOptions() and "sine:" not in words:
    raise ValueError(
      f"zoo_ options are for a zoo of sine INRs, but zoo is {options.run.zoo};"
      f" name it as sine:{options.run.zoo}, or leave them out"
    )
  return options


def to_flagfile(options: Options) -> str:
  """Returns the text of a flagfile that repeats a run with these options."""
  return config.to_flagfile(*options.groups(), prefixes=PREFIXES)


def fields() -> dict[str, tuple[type, str, type]]:
  """Returns class, name there and type of every option, by name.

  The name is that of the flag, or, of an option of an encoder, that which
  `--encoder_option` knows.
  """
  return encoder_options.fields(CLASSES, PREFIXES)


def page(
  doc: str | None, topics: Mapping[str, Any] | None = None
) -> help_text.Page:
  """Returns what `--help` of a program prints that takes these flags.

  Args:
    doc: its docstring.
    topics: shown before `TOPICS`.
  """

  def of_encoders(flag_values: flags.FlagValues) -> str:
    encoder_options.load_files(str(flag_values["encoder_file"].value))
    name = str(flag_values["encoder"].value)
    return encoder_options.described(name)

  return help_text.Page(
    doc=doc or "", topics=dict(topics or {}) | TOPICS, more=of_encoders
  )
