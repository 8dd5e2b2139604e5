"""Recognises several networks in one table of tensors.

A network and its average, a student and a teacher, an actor and a critic, an
ensemble: each is a part, and one of them is read.

Dimensions: none; shapes are tuples of sizes.
"""

import collections
import dataclasses
import itertools
import json
import re

from sne_jax.networks.inference import forms, naming
from sne_jax.networks.inference.forms import Form
from sne_jax.networks.inference.refusals import beside
from sne_jax.networks.inference.refusals.seen import Refusal, Seen, tokens

_COPIES = frozenset(
  ("ema", "swa", "averaged", "average", "avg", "shadow", "teacher", "momentum")
  + ("target", "polyak", "frozen", "ref", "reference", "old", "best")
)
"""Words for a copy of another network."""

_ROLES: tuple[tuple[Form, Form], ...] = tuple(
  (Form(*one, re.IGNORECASE), Form(*other, re.IGNORECASE))
  for one, other in (
    (
      ("g", r"generators?|gen|net_?g\d*|g_?net|g|g_[ab]+|net_?g_[ab]"),
      (
        "d critic",
        r"discriminators?|disc|net_?d\d*|d_?net|d|d_[ab]|critic|net_?d_[ab]",
      ),
    ),
    (
      (
        "actor policy pi",
        r"(\w+_)?(actor|policy|pi)(_?(net|network|mlp|model))?",
      ),
      (
        "critic v q",
        r"(\w+_)?(critic|value|vf|q|qf)\d*(_?(net|network|mlp|model))?",
      ),
    ),
    (
      ("student", r"(\w+_)?students?(_\w+)?"),
      ("teacher", r"(\w+_)?teachers?(_\w+)?"),
    ),
    (
      ("encoder", r"encoder_q|q_encoder|query_encoder"),
      ("encoder_k k_encoder key_", r"encoder_k|k_encoder|key_encoder"),
    ),
    (("branch", r"branch(_\w+)?"), ("trunk", r"trunk(_\w+)?")),
    (("online", r"online(_\w+)?"), ("target", r"target(_\w+)?")),
    (
      (
        "text language query question user caption",
        r"(text|language|query|question|user|caption)(_\w+)?",
      ),
      (
        "vision visual image audio doc context item passage",
        r"(vision|visual|image|audio|doc|document|context|item|passage)"
        r"(_\w+)?",
      ),
    ),
  )
)
"""Families of parts that are networks of their own, whatever their shapes."""

_LISTS = re.compile(
  r"(models?|nets?|networks?|members?|ensembles?|estimators?|critics?|actors?"
  r"|q(_?(net|network|func|function))?s?|qfs?|agents?|learners?|folds?"
  r"|replicas?|base_models?|submodels?|discriminators?|generators?"
  r"|classifiers|encoders|decoders)",
  re.IGNORECASE,
)
"""Lists whose members are networks; those of layers have other names."""

_MOST_TRIED = 3
"""Parts that are tried, to name one that is read by itself."""


def networks(seen: Seen) -> Refusal | None:
  """Parts of the names that are networks of their own."""
  groups: dict[str, dict[str, tuple[int, ...]]] = {}
  for name, shape in seen.matrices.items():
    words = naming.components(name)[len(seen.top) :]
    if len(words) > 1:
      groups.setdefault(words[0], {})["/".join(words[1:])] = shape
  deep = {word: own for word, own in groups.items() if len(own) > 1}
  found = _members(seen, groups) or _roles(groups) or _copies(deep)
  refusal = None if found else beside.networks(seen)
  if refusal:
    return refusal
  copies = _copies(groups)
  if copies and not found and all(len(groups[word]) == 1 for word in copies):
    return _without_copies(seen, [w for w in groups if _is_copy(w)])
  found = found or copies or _alike(groups)
  if found:
    return _ask(seen, [(word,) for word in found])
  # Ensembles that lie beside other layers.
  lists: dict[tuple[str, ...], None] = {}
  for name in seen.matrices:
    words = naming.components(name)[len(seen.top) :]
    if len(words) > 3 and words[1].isdecimal() and _is_list(words[0]):
      lists[words[:2]] = None
  stems = collections.Counter(path[0] for path in lists)
  members = [path for path in lists if stems[path[0]] > 1]
  return _ask(seen, members) if members else None


def _ask(seen: Seen, paths: list[tuple[str, ...]]) -> Refusal:
  """Asks for one part, by what stands before its names in the file.

  The first few are tried: one that is read by itself is named, or what the
  first one needs besides.
  """
  parts = [seen.head_of(path) for path in paths]
  names = ", ".join(parts[:6]) + (", ..." if len(parts) > 6 else "")
  named, more = parts[0], ' and the override {"opaque": true}'
  for part, path in zip(parts[:_MOST_TRIED], paths, strict=False):
    if seen.is_read(_inside(seen, path), seen.override):
      named, more = part, ""
      break
  else:
    inside = _inside(seen, paths[0])
    layers = (naming.role(n)[0] for n in inside if n in seen.matrices)
    order = tuple(dict.fromkeys(layers))
    settled = dataclasses.replace(seen.override, order=order)
    if seen.is_read(inside, settled):
      more = f" and the override {json.dumps({'order': order})}"
  return Refusal(
    f"it holds several networks, not one: {names}",
    f'read one of them with part="{named}" (--part={named}){more}',
  )


def _without_copies(seen: Seen, words: list[str]) -> Refusal:
  """Asks to leave out layers that are averages of those beside them."""
  parts = [seen.head_of((word,)) for word in words]
  out = [*seen.override.leave_out, *(f"{part}.*" for part in parts)]
  if any("/" in name for name in seen.shapes):
    out = [*seen.override.leave_out, *(f"{part}/*" for part in parts)]
  return Refusal(
    f"it holds layers and copies of them: {', '.join(parts[:6])}"
    + ", ..." * (len(parts) > 6),
    f"leave the copies out: {json.dumps({'leave_out': out})}",
  )


def _inside(seen: Seen, path: tuple[str, ...]) -> list[str]:
  """Names under a path behind `top`."""
  wanted = (*seen.top, *path)
  everything = (*seen.shapes, *seen.left_out)
  return [
    n for n in everything if naming.components(n)[: len(wanted)] == wanted
  ]


def _is_list(word: str) -> bool:
  plural = word.lower().rstrip("_")
  return bool(_LISTS.fullmatch(plural)) and plural not in ("model", "net")


def _members(seen: Seen, groups) -> list[str]:
  """Members of a list of networks: models.0, models.1."""
  numbered = [word for word in groups if word.isdecimal()]
  deep = all(len(rest) > 1 for word in numbered for rest in [groups[word]])
  inner = seen.top[-1] if seen.top else ""
  if len(numbered) > 1 and len(numbered) == len(groups) and _is_list(inner):
    return numbered if deep else []
  # q1 and q2, model_0 and model_1.
  stems: dict[str, list[str]] = {}
  for word in groups:
    if re.search(r"\d$", word):
      stems.setdefault(re.sub(r"_?\d+$", "", word), []).append(word)
  for stem, words in stems.items():
    alike = len({tuple(sorted(groups[w].items())) for w in words}) == 1
    deep = all(len(groups[word]) > 1 for word in words)
    if (
      len(words) > 1
      and alike
      and deep
      and (
        _LISTS.fullmatch(stem) or stem.lower() in ("q", "qf", "model", "net")
      )
    ):
      return words
  return []


def _roles(groups) -> list[str]:
  """Parts whose names say that they are trained with or against others."""
  groups = {word: own for word, own in groups.items() if len(own) > 1}
  if len(groups) < 2:
    return []
  text = forms.text_of(groups)
  for family in _ROLES:
    if not all(form.may_match(text) for form in family):
      continue
    sides = [
      [word for word in groups if form.compiled.fullmatch(word)]
      for form in family
    ]
    if all(sides):
      return list(dict.fromkeys(word for side in sides for word in side))
  return []


def _copies(groups) -> list[str]:
  """A part called an average or the like, and one of the same shapes."""
  shapes = {
    word: collections.Counter(own.values()) for word, own in groups.items()
  }
  for word in groups:
    if not _is_copy(word):
      continue
    same = [other for other in groups if shapes[other] == shapes[word]]
    if len(same) > 1:
      return sorted(same, key=lambda one: one == word)
  return []


def _is_copy(word: str) -> bool:
  """Whether a part is called an average or the like of another."""
  return bool(_COPIES & set(tokens(word)))


def _alike(groups) -> list[str]:
  """Parts of the same names and shapes within, not numbered as blocks are."""
  for one, other in itertools.combinations(groups, 2):
    if len(groups[one]) < 2 or groups[one] != groups[other]:
      continue
    numbered = re.sub(r"\d+", "#", one) == re.sub(r"\d+", "#", other)
    pair = {one.lower(), other.lower()}
    if not numbered and not pair <= {"encoder", "decoder", "enc", "dec"}:
      return [one, other]
  return []
