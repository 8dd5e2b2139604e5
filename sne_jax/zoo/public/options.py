"""What to take from a published zoo."""

import dataclasses
from collections.abc import Collection


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertOptions:
  """What to take from a published zoo, and how to split it.

  An option that a zoo has no use for is refused.
  """

  # Epochs whose snapshots are taken, such as 86 or 0,25,50; empty: all.
  epochs: str = ""
  # File of the published split; empty: the one in the source folder, if any.
  split_file: str = ""
  seed: int = 0  # Of the splits that no file says, at least 0.
  # Networks of the part `train`, where a protocol counts them; 0: as published.
  train_networks: int = 0
  # Networks of the part `val`, where a protocol counts them; 0: as published.
  val_networks: int = 0
  # Leave out networks whose file is damaged, counted in zoo.json, rather than
  # stop at the first.
  skip_damaged: bool = False

  def __post_init__(self):
    """Raises `ValueError` for a value out of range."""
    for name in ("seed", "train_networks", "val_networks"):
      if getattr(self, name) < 0:
        raise ValueError(
          f"{name} must be at least 0, got {getattr(self, name)}"
        )
    _ = self.chosen_epochs

  @property
  def chosen_epochs(self) -> frozenset[int] | None:
    """The numbers in `epochs`; None takes all."""
    if not self.epochs.strip():
      return None
    try:
      found = frozenset(int(word) for word in self.epochs.split(","))
    except ValueError:
      found = frozenset((-1,))
    if min(found) < 0:
      raise ValueError(
        f"epochs must be numbers such as 0,25,50; got {self.epochs!r}"
      )
    return found

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
