"""The entry point that makes zoos: its flags, and its smallest run."""

import pathlib

import pytest
from absl import flags

import experiments
from sne_jax.cli import config
from sne_jax.cli.commands import zoo as make_zoo
from sne_jax.zoo.classifiers import images, labels, options
from sne_jax.zoo.store import store
from sne_jax.zoo.tickets import pruning

FLAGFILES = sorted(
  (pathlib.Path(experiments.__file__).parent / "flags" / "zoos").glob("*.flags")
)


def parsed(*arguments):
  values = flags.FlagValues()
  make_zoo.define_flags(values)
  flags.DEFINE_string("flagfile", "", "of flags", flag_values=values)
  config.parse(["make_zoo", *arguments], values)
  return values


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.stem)
def test_flagfiles_are_understood(path):
  values = parsed(f"--flagfile={path}")
  zoo = config.from_flags(options.ImageZooOptions, flag_values=values)
  image = config.from_flags(images.ImageOptions, flag_values=values)
  made = config.from_flags(make_zoo.MakeOptions, flag_values=values)
  assert made.zoo == f"zoos/{path.stem}"
  assert zoo.num_networks >= 20 and image.dataset


def test_there_are_flagfiles():
  assert len(FLAGFILES) >= 5


def options_of(*arguments):
  values = parsed(*arguments)
  classes = (images.ImageOptions, options.ImageZooOptions)
  return [config.from_flags(cls, flag_values=values) for cls in classes]


def test_more_labels_are_of_the_same_networks_and_leave_the_others_alone():
  """Without them, images are left over for `--image_counts`."""
  [path] = [p for p in FLAGFILES if p.stem == "digits_arch1"]
  more = path.with_stem("digits_arch1_labels")
  few, many = (options_of(f"--flagfile={p}") for p in (path, more))
  assert few == many
  image, zoo = few
  every = make_zoo.load_all_images(image, zoo)
  spare = {}
  for p in (path, more):
    asked = parsed(f"--flagfile={p}")["label_images"].value
    count = asked or labels.num_labels(zoo.eval_images, every)
    found = labels.label_images(every, image.train_images, count)
    spare[p.stem] = len(every.x_train) - image.train_images - found.spare
  assert spare == {"digits_arch1": 297, "digits_arch1_labels": 0}


@pytest.mark.parametrize(
  ("flags_", "side"),
  [
    ((), 16),
    (("--architecture=arch1,mlp",), 16),
    (("--architecture=mlp",), 8),
    (("--architecture=wild_park",), 8),
    (("--image_size=20",), 20),
    (("--image_size=8",), 8),  # As it was said; it is refused later.
  ],
)
def test_images_are_large_enough_for_the_architecture(flags_, side):
  image, zoo = options_of(*flags_)
  data = make_zoo.load_images(image, zoo)
  assert data.shape == (1, side, side)
  if side > 8:  # The same as if the size had been said.
    said = images.load_images(images.ImageOptions(image_size=side))
    assert images.digest(data) == images.digest(said)


def test_the_flagfiles_do_not_say_how_many_train_together():
  """It depends on the machine, and is found."""
  for path in FLAGFILES:
    assert options_of(f"--flagfile={path}")[1].batch_members == 0, path


def test_an_image_size_that_is_too_small_is_refused(tmp_path):
  values = parsed(f"--zoo={tmp_path / 'zoo'}", "--image_size=8")
  with pytest.raises(ValueError, match="'arch1' cannot take images of 8x8"):
    make_zoo.main([], values)


@pytest.mark.slow
def test_a_zoo_is_made_and_opened_again(tmp_path, capsys):
  values = parsed(
    f"--zoo={tmp_path / 'zoo'}",  # And the default architecture and images.
    "--activation=tanh",
    "--optimizer=sgd",
    "--initializer=glorot_normal",
    "--dropout=0",
    "--num_networks=6",
    "--snapshots=1,2",
    "--train_images=100",
    "--test_images=50",
  )
  make_zoo.main([], values)
  said = capsys.readouterr().out
  assert "labelled with 50 test images" in said
  assert "12 members" in said and "median" in said and "0 members div" in said
  assert len(store.Zoo.open(tmp_path / "zoo")) == 12
  make_zoo.main([], values)
  assert capsys.readouterr().out == said
  values["label_images"].value = 70
  make_zoo.main([], values)
  assert "labelled with 70 test images" in capsys.readouterr().out


IMAGES = ("--family=inr_image", "--inr_hidden=4", "--inr_max_steps=5")


@pytest.mark.parametrize(
  "path",
  sorted(FLAGFILES[0].parent.glob("images/*.flags")),
  ids=lambda p: p.stem,
)
def test_flagfiles_of_images_are_understood(path):
  make, image, _, inr, _ = make_zoo.options_of(parsed(f"--flagfile={path}"))
  assert make.family == "inr_image" and make.zoo == f"zoos/{path.stem}"
  assert image.dataset and inr.form in ("dws", "nfn")


@pytest.mark.parametrize(
  "path",
  sorted(FLAGFILES[0].parent.glob("tickets/*.flags")),
  ids=lambda p: p.stem,
)
def test_flagfiles_of_tickets_are_understood(path):
  make, image, *_, ticket = make_zoo.options_of(parsed(f"--flagfile={path}"))
  name = path.stem.replace("_", "_tickets_", 1)
  assert make.family == "tickets" and make.zoo == f"zoos/{name}"
  assert image.dataset and 0 < ticket.sparsity < 1


def test_images_as_networks_are_made_and_opened_again(tmp_path, capsys):
  values = parsed(
    *(*IMAGES, f"--zoo={tmp_path / 'zoo'}"),
    *("--train_images=5", "--test_images=2", "--inr_refits=2"),
  )
  make_zoo.main([], values)
  said = capsys.readouterr().out
  assert "12 members" in said and "PSNR: median" in said
  assert "12 members did not reach 40 dB in 5 steps" in said
  make_zoo.main([], values)
  assert capsys.readouterr().out == said


TICKETS = ("--family=tickets", "--ticket_rounds=1", "--ticket_epochs=1")


def test_tickets_are_made_and_opened_again(tmp_path, capsys):
  values = parsed(
    *(*TICKETS, f"--zoo={tmp_path / 'zoo'}", "--ticket_num_networks=4"),
    *("--train_images=90", "--test_images=20", "--ticket_sparsity=0.5"),
    *("--ticket_validation_images=20", "--ticket_test_share=0.3"),
    "--ticket_validation_share=0.3",
  )
  make_zoo.main([], values)
  said = capsys.readouterr().out
  assert "4 members" in said and "at sparsity 0.5: dense" in said
  assert store.Zoo.open(tmp_path / "zoo").masks is not None
  make_zoo.main([], values)
  assert capsys.readouterr().out == said


@pytest.mark.slow
def test_tickets_of_a_cnn_are_made_on_images_that_it_takes(tmp_path):
  values = parsed(
    *(*TICKETS, f"--zoo={tmp_path / 'zoo'}", "--ticket_num_networks=3"),
    *("--train_images=90", "--test_images=20", "--ticket_architecture=arch1"),
    *("--ticket_validation_images=20", "--ticket_sparsity=0.8"),
    *("--ticket_test_share=0", "--ticket_validation_share=0"),
  )
  make_zoo.main([], values)
  zoo = store.Zoo.open(tmp_path / "zoo")
  (spec,) = zoo.specs
  assert spec.option("image_shape") == (1, 16, 16)
  kept = pruning.kept(spec, zoo.masks.rows(range(3)))
  assert (kept == pruning.counts(spec, 0.2)).all()
  assert kept.shape == (3, 4) and kept[0, 0] == 29  # Of 144.


@pytest.mark.parametrize(
  ("given", "message"),
  [
    (
      (*IMAGES, "--num_networks=5"),
      "--num_networks is for --family=classifier",
    ),
    (("--inr_form=nfn",), "--inr_form is for --family=inr_image"),
    (
      (*IMAGES, "--label_images=9"),
      "--label_images is for --family=classifier",
    ),
    ((*IMAGES, "--dataset=absent"), "no images called 'absent'"),
    ((*TICKETS, "--inr_form=nfn"), "--inr_form is for --family=inr_image"),
    (("--ticket_epochs=2",), "--ticket_epochs is for --family=tickets"),
    ((*TICKETS, "--label_images=9"), "untrained networks classify none"),
    ((*TICKETS, "--ticket_sparsity=1"), "sparsity is 1.0; must be above 0"),
    ((*TICKETS, "--ticket_num_networks=1"), "of num_networks 1 leave a part"),
  ],
)
def test_options_of_the_other_family_are_refused(tmp_path, given, message):
  values = parsed(f"--zoo={tmp_path / 'zoo'}", *given)
  with pytest.raises(ValueError, match=message):
    make_zoo.main([], values)
  assert not list(tmp_path.iterdir())
