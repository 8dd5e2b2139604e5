"""What to take from a published zoo."""

import dataclasses
from collections.abc import Collection

from sne_jax.networks.checked import Checked, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertOptions(Checked):
  """What to take from a published zoo, and how to split it.

  An option that a zoo has no use for is refused.

  Attributes:
    epochs: epochs whose snapshots are taken, such as 86 or 0,25,50; empty: all.
    split_file: file of the published split; empty: the one in the source
      folder, if any.
    seed: of the splits that no file says.
    train_networks: networks of the part train, where a protocol counts them; 0:
      as published.
    val_networks: networks of the part val, where a protocol counts them; 0: as
      published.
    skip_damaged: leave out networks whose file is damaged, counted in zoo.json,
      rather than stop at the first.
  """

  epochs: str = ""
  split_file: str = ""
  seed: int = option(0, least=0)
  train_networks: int = option(0, least=0)
  val_networks: int = option(0, least=0)
  skip_damaged: bool = False

  def __post_init__(self):
    super().__post_init__()
    _ = self.chosen_epochs

  @property
  def chosen_epochs(self) -> frozenset[int] | None:
    """The numbers in `epochs`; None takes all."""
    if not self.epochs.strip():
      return None
    try:
      epochs = frozenset(int(word) for word in self.epochs.split(","))
    except ValueError:
      epochs = frozenset((-1,))
    if min(epochs) < 0:
      raise ValueError(
        f"epochs must be numbers such as 0,25,50; got {self.epochs!r}"
      )
    return epochs

  def takes(self, epoch: int) -> bool:
    """Whether snapshots of this epoch are taken."""
    chosen = self.chosen_epochs
    return chosen is None or epoch in chosen

  def only(self, zoo: str, names: Collection[str]) -> None:
    """Refuses options that a zoo has no use for.

    Args:
      zoo: its name, for the message.
      names: options that it uses; `skip_damaged` is always allowed.

    Raises:
      ValueError: another one is set.
    """
    for field in dataclasses.fields(self):
      if field.name in (*names, "skip_damaged"):
        continue
      if getattr(self, field.name) != field.default:
        raise ValueError(
          f"{field.name} is {getattr(self, field.name)!r}, and {zoo} has no"
          f" use for it; it uses {', '.join(names) or 'none'}"
        )
