r"""Lists models to begin with, shows one, or makes one of a run.

  sne-jax models
  sne-jax models sine-frequency

`sne-jax predict --model=NAME FILES` predicts with one. A name is that of a
model that ships with the library, a folder, or owner/name on the Hugging Face
Hub. A finished run becomes such a folder, to be given away, of safetensors and
JSON, with a model card:

  sne-jax models --export=RUN --out=FOLDER --card=card.json

where card.json says what the library cannot know: name, summary, zoo, limits,
licence. --push=owner/name uploads it.
"""

import dataclasses
import json
import pathlib
from typing import Any

from absl import flags

import sne_jax
from sne_jax.cli import config, encoder_options, environment
from sne_jax.networks.checked import Checked
from sne_jax.sharing import card, folders, hub, names, runs


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShareOptions(Checked):
  """Which run becomes a model to give away, and where.

  Attributes:
    export: folder of a finished run; empty: list or show models.
    out: folder of the model; new, or empty.
    card: JSON file with facts of the model card (name, summary, zoo, limits,
      licence, made_by); empty: none.
    push: owner/name on the Hugging Face Hub that the model of --out is uploaded
      to; empty: nowhere.
    private: whether a repository that is made there is for its owner alone.
    encoder_file: Python files that register encoders of your own, separated by
      commas, for a model of one; they are run first.
  """

  export: str = ""
  out: str = ""
  card: str = ""
  push: str = ""
  private: bool = False
  encoder_file: str = ""

  def __post_init__(self):
    super().__post_init__()
    if (self.export or self.push) and not self.out:
      raise ValueError("out is empty; name the folder of the model by --out")
    if not self.export and (self.card or (self.out and not self.push)):
      raise ValueError(
        "export is empty; name the folder of a finished run by --export"
      )


CLASSES = (ShareOptions,)


def main(argv: list[str], flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Reads the flags, and lists, shows or makes models.

  Raises:
    ValueError: there is no such model or run, or no folder to write.
  """
  options = config.from_flags(ShareOptions, flag_values=flag_values)
  if options.export:
    encoder_options.load_files(options.encoder_file)
    made = export(options.export, options.out, read_card(options.card))
    print(f"The model is {made}")
  if options.push:
    print(hub.upload(options.out, options.push, private=options.private))
  for name in argv[1:]:
    print(shown(name))
  if not (options.export or options.push or argv[1:]):
    print(listed())


def export(
  run: str, out: str | pathlib.Path, facts: dict[str, Any]
) -> pathlib.Path:
  """Makes a model to give away of a finished run.

  Args:
    run: its folder.
    out: folder of the model; new, or empty.
    facts: for its card; figures on tests are those of the run.

  Raises:
    PredictorError: it has no finished model.
    ValueError: the folder holds something, or a fact is none.
  """
  predictor = sne_jax.Predictor.load(run)
  revision = environment.environment()["revision"]
  given = {"metrics": card.metrics_of(runs.results(run))}
  given |= {"revision": "" if revision is None else str(revision)}
  try:
    results = json.loads(pathlib.Path(run, "results.json").read_text())
  except (OSError, ValueError):  # Of a run without a report.
    results = {}
  given["references"] = card.references_of(results, predictor.targets)
  return predictor.save_pretrained(out, **(given | facts))


def read_card(path: str) -> dict[str, Any]:
  """Returns the facts that a file holds; none where no file is named.

  Raises:
    ValueError: it is no JSON object of facts.
  """
  if not path:
    return {}
  try:
    facts = json.loads(pathlib.Path(path).read_text())
    card.of(facts)
  except (OSError, ValueError, TypeError, AttributeError) as error:
    raise ValueError(
      f"card is {path}, which holds no facts ({error}); give a JSON object with"
      " name, summary, zoo, limits, licence"
    ) from error
  return facts


def listed() -> str:
  """Returns a line for each model that ships with the library."""
  lines = []
  for name in names.shipped():
    folder = names.HOME / name
    lines += [f"{name}  ({_size(folder) / 1e6:.1f} MB)"]
    lines += [f"  {folders.read_facts(folder).summary}"]
  lines.append(
    "\nsne-jax models NAME says more; --model=NAME predicts with it."
  )
  return "\n".join(lines)


def shown(name: str) -> str:
  """Returns all that is said of one model.

  Raises:
    PredictorError: there is none of that name.
  """
  folder = names.find(name)
  if not folders.is_one(folder):
    raise runs.PredictorError(
      f"{folder} holds no {folders.WEIGHTS_FILE}; it is no folder of"
      " save_pretrained"
    )
  facts = folders.read_facts(folder)
  said = {
    "summary": facts.summary,
    "trained on": facts.zoo,
    "not for": facts.limits,
    "licence": facts.licence,
    "made by": facts.made_by,
    "revision": facts.revision,
    "folder": f"{folder} ({_size(folder) / 1e6:.1f} MB)",
  }
  lines = [facts.name or name]
  lines += [f"  {key}: {text}" for key, text in said.items() if text]
  lines += [f"  {' '.join(row)}" for row in card.rows(facts)]
  return "\n".join(lines)


def _size(folder: pathlib.Path) -> int:
  """Returns the bytes of all files of a model."""
  return sum(p.stat().st_size for p in folder.iterdir() if p.is_file())
