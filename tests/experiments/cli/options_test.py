"""Options: each is explained, with the words that it takes, and shown."""

import dataclasses
import importlib
import re
import shlex

import pytest
from absl import flags

from experiments.cli import options as options_lib
from sne_jax.cli import config, encoder_options, help_text, main
from sne_jax.encoders import table
from sne_jax.encoders.sets import layers
from sne_jax.encoders.tokens import sane, token_layers
from sne_jax.networks import checked
from sne_jax.zoo.classifiers import fine_tune

SCRIPTS = (
  *("predict", "encode", "edit", "inspect_network"),
  *("make_zoo", "convert_zoo"),
)
"""Scripts that run a subcommand of `sne-jax`."""

MODULES = {f"sne-jax {n}": f"sne_jax.cli.commands.{n}" for n in main.COMMANDS}
PREDICT = ("--workdir=runs/x",)


def classes():
  """Every class of options, each once."""
  found = [*options_lib.CLASSES, layers.SetOptions, sane.SANEOptions]
  found += [row.options for row in table.ENCODERS.values()]
  found += [fine_tune.TuneSettings, token_layers.ProjectionOptions]
  for name in MODULES.values():
    found += importlib.import_module(name).CLASSES
  return list(dict.fromkeys(found))


@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
def test_every_option_is_explained_with_its_words(cls):
  said = help_text.attributes(cls)
  assert set(said) >= {field.name for field in dataclasses.fields(cls)}
  for field in dataclasses.fields(cls):
    for word in filter(None, field.metadata.get("choices", ())):
      assert re.search(rf"\b{word}", said[field.name]), (field.name, word)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Some(checked.Checked):
  count: int = checked.option(1, least=1, most=3)
  share: float = checked.option(0.5, above=0, below=1)
  word: str = checked.option("a", choices=("a", "b"))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"count": 0}, "count is 0; must be at least 1 and at most 3"),
    ({"count": 4}, "count is 4; must be at least 1 and at most 3"),
    ({"share": 0.0}, "share is 0.0; must be above 0 and below 1"),
    ({"share": 1.0}, "share is 1.0; must be above 0 and below 1"),
    ({"share": float("nan")}, "share is nan; must be above 0 and below 1"),
    ({"word": "c"}, "word is 'c'; choose one of a, b"),
  ],
)
def test_values_are_held_against_their_field(changes, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    Some(**changes)
  Some(count=3, share=0.999, word="b")


def test_options_that_are_gone_are_dropped_or_named(monkeypatch):
  monkeypatch.setitem(checked.GONE, "Some", {"old": "x"})
  assert checked.rebuilt(Some, {"count": 2, "old": "x"}) == Some(count=2)
  with pytest.raises(ValueError, match="old='y'.*only 'x' remains"):
    checked.rebuilt(Some, {"old": "y"})
  with pytest.raises(ValueError, match="new=1, an option that Some does not"):
    checked.rebuilt(Some, {"new": 1})


def resolved(*arguments):
  values = flags.FlagValues()
  options_lib.define_flags(values)
  config.parse(["run.py", *arguments], values)
  return options_lib.from_flags(values)


def test_options_of_encoders_by_name():
  options = resolved(
    "--encoder_option=stat_width=10",
    "--encoder_option=nfn_io_embed=false",
    "--encoder_option=stat_width=12",
  )
  assert options.encoder_options("stat_nn").width == 12
  assert options.encoder_options("stat_pool").width == 12
  assert options.encoder_options("nfn_np").io_embed is False
  assert options.encoder_options("sne") == options.sne
  changed = options.replaced(stat_layers=2, encoder="stat_nn")
  assert changed.encoder_options("stat_nn").layers == 2
  assert changed.encoder_options("stat_nn").width == 12


@pytest.mark.parametrize(
  ("item", "message"),
  [
    ("stat_widht=3", "did you mean stat_width?"),
    ("width=32", "width is a flag of its own; use --width=32"),
    ("stat_width=x", "stat_width cannot be 'x'"),
    ("stat_width=0", "stat_width is 0; must be at least 1"),
    ("nft_channels=6", "nft_channels is 6; must be even and a multiple"),
    ("stat_width", "write it as name=value"),
  ],
)
def test_wrong_options_of_encoders_are_named(item, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    resolved(f"--encoder_option={item}")


def test_a_saved_flagfile_repeats_a_run_whatever_the_defaults_become(
  tmp_path, monkeypatch
):
  options = resolved("--encoder=mlp", "--encoder_option=mlp_width=8")
  path = tmp_path / "flags.txt"
  path.write_text(options_lib.to_flagfile(options))
  monkeypatch.setattr(  # A default of a later version.
    table.row("mlp").options.__dataclass_fields__["layers"], "default", 9
  )
  again = resolved(f"--flagfile={path}")
  assert again.encoder_options("mlp") == options.encoder_options("mlp")
  assert config.resolved(*again.groups()) == config.resolved(*options.groups())


def test_a_contest_saves_the_options_of_all_its_encoders():
  options = resolved("--rates=1e-3", "--encoders=sne,mlp,dws")
  found = config.resolved(*options.groups())["EncoderOptions"]
  names = {name.split("_")[0] for name in found}
  assert names == {"mlp", "dws"}


def test_options_of_encoders_that_take_no_part_count_for_nothing(caplog):
  options = resolved(
    "--encoder=mlp",
    "--encoder_option=mlp_width=8",
    "--encoder_option=stat_width=9",
  )
  with caplog.at_level("WARNING", logger="absl"):
    options.warn_of_unused()
  (record,) = caplog.records
  assert "stat_width is left out: it is for stat_nn" in record.getMessage()
  plain = resolved("--encoder=mlp", "--encoder_option=mlp_width=8")
  assert config.resolved(*options.groups()) == config.resolved(*plain.groups())
  assert "stat_width" not in options_lib.to_flagfile(options)


def test_flagfiles_of_earlier_versions_are_read(tmp_path):
  path = tmp_path / "flags.txt"
  path.write_text(
    "--stat_width=7\n--nograph_reverse\n--view_pool_size=0\n"
    "--symmetry_on=host\n--sample_learning_rate=0.0\n--decay_vectors=false\n"
    "--zoo_points=0\n"
  )
  options = resolved(f"--flagfile={path}")
  assert options.encoder_options("stat_nn").width == 7
  assert options.encoder_options("neural_graph").reverse is False


def test_an_option_that_is_gone_is_named(capsys):
  with pytest.raises(SystemExit) as ended:
    resolved("--symmetry_on=device")
  assert ended.value.code == 2
  words = "--symmetry_on=device: this option is gone; only 'host' remains"
  assert words in capsys.readouterr().err


def test_sine_options_are_for_sine_zoos():
  assert resolved("--zoo=sine:x", "--zoo_hidden=3").zoo.hidden == 3
  with pytest.raises(ValueError, match="name it as sine:x"):
    resolved("--zoo=x", "--zoo_hidden=3")


def page_of(page, capsys, *arguments, define=options_lib.define_flags):
  values = flags.FlagValues()
  define(values)
  with pytest.raises(SystemExit) as ended:
    config.parse(["program", *arguments], values, page=page)
  assert ended.value.code == 0
  return capsys.readouterr().out


def test_help_is_short_and_has_all_common_flags(capsys):
  run = importlib.import_module("experiments.run")
  page = options_lib.page(run.__doc__)
  text = page_of(page, capsys, "--help")
  assert len(text.splitlines()) <= 350
  assert max(map(len, text.splitlines())) <= help_text.WIDTH
  for topic, names in options_lib.TOPICS.items():
    assert f"\n{topic}\n" in text
    for name in names:
      assert f"\n  --{name}=" in text
  full = page_of(page, capsys, "--helpfull")
  for name, (cls, *_) in options_lib.fields().items():
    if cls is not encoder_options.EncoderOptions:
      assert f"\n  --{name}=" in full
  assert len(full) > len(text)


def test_help_of_an_encoder_has_its_options(capsys):
  page = options_lib.page("")
  text = page_of(page, capsys, "--encoder=mlp", "--help")
  assert "Options of mlp, given as --encoder_option=mlp_width=" in text
  assert "\n  mlp_normalise=tensor\n" in text
  assert "mlp_" not in page_of(page, capsys, "--help")


@pytest.mark.parametrize("name", MODULES)
def test_help_of_other_programs(name, capsys):
  module = importlib.import_module(MODULES[name])
  prefixes = getattr(module, "PREFIXES", {})
  define = lambda values: config.define_flags(
    *module.CLASSES, prefixes=prefixes, flag_values=values
  )
  page = help_text.Page(doc=module.__doc__)
  for flag in ("--help", "--helpfull"):
    text = page_of(page, capsys, flag, define=define)
    for cls in module.CLASSES:
      for field in config.flag_fields(cls):
        assert f"\n  --{prefixes.get(cls, '')}{field.name}=" in text


PROGRAMS = [f"{name}.py" for name in ("run", "sweep", *SCRIPTS)]


@pytest.mark.parametrize("name", (*PROGRAMS, *main.COMMANDS))
def test_examples_of_a_docstring_can_be_pasted(name):
  program = f"python experiments/{name}"
  module = f"experiments.{name.removesuffix('.py')}"
  if name in main.COMMANDS:
    program, module = f"sne-jax {name}", f"sne_jax.cli.commands.{name}"
  doc = importlib.import_module(module).__doc__
  start = program.split()[0]
  blocks = re.findall(rf"^  {start} (?:.*\\\n)*.*$", doc, re.M)
  assert blocks
  for block in blocks:
    words = shlex.split(block.replace("\\\n", " "))
    assert words[:2] == program.split()
    assert not any("\\" in word for word in words)
    assert "    " not in block.replace("\n    ", " ")
