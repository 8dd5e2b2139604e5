"""Which places move together: union-find over the factors of tensor axes.

Every axis of every tensor and intermediate value is a row-major product of
*nodes*. A node stands for places that one permutation moves. What a network
does to its values says which nodes are the same (`unify`), which are products
of smaller ones (`regroup`), and which can never move (`pin`). Where nothing is
known the nodes are pinned: what remains free is a symmetry, though perhaps not
the largest one.

A node that is cut off by its number, such as the 3 of fused queries, keys and
values, is *enumerated* (`pick`): each of its members gets nodes of its own.

`finish` closes the books; `outer` says in which others a node is nested: its
places may be permuted anew for each member of another node if no value ever
holds the one without the other.

Dimensions: none; axes are tuples of node numbers, `()` for one place.
"""

import collections
import math
from collections.abc import Iterable, Sequence

Axis = tuple[int, ...]

MOST_MEMBERS = 8
"""The largest node that is enumerated; 3 for queries, keys and values."""


class Axes:
  """The nodes of one network. Mutable; one per inference."""

  def __init__(self):
    self._link: list[int] = []
    self._size: list[int] = []
    self._pinned: list[bool] = []
    self._parts: dict[int, Axis] = {}
    # (enumerated node, node, member) -> the node of that member.
    self._members: dict[tuple[int, int, int], int] = {}
    self._seen: list[tuple[Axis, ...]] = []
    self._outer: dict[int, frozenset[int]] = {}
    self._rooted: tuple[set[int], dict[tuple[int, int, int], int]] | None = None
    self.reasons: dict[str, None] = {}

  def fresh(self, size: int, pinned: bool = False) -> Axis:
    """Returns an axis of `size` places that nothing is known of."""
    if size == 1:
      return ()
    self._link.append(len(self._link))
    self._size.append(size)
    self._pinned.append(pinned)
    return (len(self._link) - 1,)

  def leaves(self, axis: Iterable[int]) -> Axis:
    """Returns the nodes that an axis is made of now."""
    leaves: list[int] = []
    for node in axis:
      root = self._root(node)
      if root in self._parts:
        leaves.extend(self.leaves(self._parts[root]))
      else:
        leaves.append(root)
    return tuple(leaves)

  def size(self, axis: Iterable[int]) -> int:
    """Returns the number of places of an axis."""
    return math.prod(self._size[self._root(node)] for node in axis)

  def is_pinned(self, node: int) -> bool:
    """Whether a leaf never moves."""
    return self._pinned[self._root(node)]

  def is_free(self, axis: Iterable[int]) -> bool:
    """Whether any place of an axis moves, as far as is known."""
    return any(not self.is_pinned(leaf) for leaf in self.leaves(axis))

  def pin(self, axis: Iterable[int], reason: str = "") -> None:
    """Says that no place of the axis moves; keeps why, if that is news."""
    for leaf in self.leaves(axis):
      if not self._pinned[leaf]:
        self._pinned[leaf] = True
        if reason:
          self.reasons[reason] = None

  def unify(self, one: Axis, other: Axis, reason: str = "") -> None:
    """Says that two axes of one size are the same places, in one order."""
    left, right = list(self.leaves(one)), list(self.leaves(other))
    while left and right:
      a, b = left.pop(0), right.pop(0)
      if a == b:
        continue
      small, large = sorted((self._size[a], self._size[b]))
      if small == large:
        self._union(a, b)
      elif large % small == 0:
        # Equal outer parts, and what is left of the larger.
        parts = self._split(a if self._size[a] == large else b, small)
        rest = left if self._size[a] == large else right
        rest.insert(0, parts[1])
        self._union(parts[0], b if rest is left else a)
      else:
        self.pin((a, b, *left, *right), reason or "axes do not match")
        return
      left, right = list(self.leaves(left)), list(self.leaves(right))

  def regroup(
    self, axes: Sequence[Axis], shape: Sequence[int], reason: str = ""
  ) -> tuple[Axis, ...]:
    """Returns the axes of a value after a reshape, row-major."""
    left = [leaf for axis in axes for leaf in self.leaves(axis)]
    grouped = []
    for size in shape:
      axis, wanted = [], size
      while wanted > 1 and left:
        node = left.pop(0)
        have = self._size[node]
        if wanted % have == 0:
          axis.append(node)
          wanted //= have
        elif have % wanted == 0:
          first, rest = self._split(node, wanted)
          axis.append(first)
          left = [rest, *left]
          wanted = 1
        else:
          left.insert(0, node)
          break
      if wanted > 1:
        self.pin([n for axis in axes for n in axis], reason or "a reshape")
        return tuple(self.fresh(n, pinned=True) for n in shape)
      grouped.append(tuple(axis))
    return tuple(grouped)

  def pick(self, axes: Sequence[Axis], place: int, member: int, reason: str):
    """Returns the axes of a value of which one axis is cut by its number.

    Args:
      axes: of the value; axis `place` is dropped.
      place: the axis that is cut.
      member: which of its places is taken.
      reason: kept if nothing can be said and nodes are pinned.
    """
    rest = [a for p, a in enumerate(axes) if p != place]
    cut, *others = self.leaves(axes[place]) or (None,)
    if cut is None or not self.is_free((cut, *others)):
      return tuple(rest)
    alone = not any(self.is_free(axis) for axis in rest)
    if others or alone or self._is_tangled(cut, rest):
      self.pin((cut, *others), reason)
      return tuple(rest)
    return tuple(
      tuple(self.member(cut, leaf, member) for leaf in self.leaves(axis))
      for axis in rest
    )

  def _is_tangled(self, cut: int, rest: Sequence[Axis]) -> bool:
    """Whether a node is too large to be enumerated, or others are already."""
    if self._size[cut] > MOST_MEMBERS:
      return True
    held = {leaf for axis in rest for leaf in self.leaves(axis)}
    return any(
      self._root(s) in held or self._root(s) != cut and cut in self.leaves((x,))
      for s, x, _ in self._members
    )

  def join(self, blocks: Sequence[Axis]) -> Axis | None:
    """Returns the axis of blocks of one size, one after another.

    The number of the block is enumerated: what reads the axis is cut into
    parts, each with the neurons of one block. None where blocks cannot be
    told apart like that, or where none of them moves.
    """
    leaves = [self.leaves(block) for block in blocks]
    sizes = {self.size(block) for block in blocks}
    cuts = {self._root(s) for s, _, _ in self._members}
    plain = all(len(held) == 1 and held[0] not in cuts for held in leaves)
    if not plain or len(sizes) > 1 or not 1 < len(blocks) <= MOST_MEMBERS:
      return None
    if not any(map(self.is_free, blocks)):
      return None
    (cut,), (node,) = self.fresh(len(blocks)), self.fresh(sizes.pop())
    for number, (leaf,) in enumerate(leaves):
      self._members[cut, node, number] = leaf
    self._rooted = None
    return (cut, node)

  def member(self, cut: int, node: int, member: int) -> int:
    """Returns what `node` is for one member of an enumerated node."""
    if self._pinned[node] or node == cut:
      return node
    key = (cut, node, member)
    if key not in self._members:
      self._members[key] = self.fresh(self._size[node])[0]
      self._rooted = None
    return self._members[key]

  def see(self, axes: Sequence[Axis]) -> None:
    """Notes a value: which nodes it holds together."""
    self._seen.append(tuple(axes))

  def enumerated(self, axes: Sequence[Axis]) -> list[int]:
    """Returns the enumerated nodes that a value holds."""
    cut, _ = self._by_root()
    if not cut:
      return []
    held = [leaf for axis in axes for leaf in self.leaves(axis)]
    return list(dict.fromkeys(leaf for leaf in held if leaf in cut))

  def finish(self) -> None:
    """Settles enumerated nodes and which node is nested in which."""
    while self._settle() or self._merge_met():
      pass
    for cut in self._by_root()[0]:
      self._pinned[cut] = True
    outer: dict[int, set[int]] = {}
    for axes in dict.fromkeys(self._seen_leaves()):
      for resolved in self.expand(axes):
        count = collections.Counter(n for axis in resolved for n in axis)
        once = {node for node, times in count.items() if times == 1}
        for axis in resolved:
          beside = set(axis) if len(set(axis)) == len(axis) else set()
          for node in axis:
            held = (once | beside) - {node}
            outer[node] = outer.get(node, held) & held
    self._outer = {
      node: frozenset(n for n in held if not self._pinned[n])
      for node, held in outer.items()
    }

  def outer(self, node: int) -> frozenset[int]:
    """Returns the nodes that a leaf is always seen with; after `finish`."""
    return self._outer.get(node, frozenset())

  def expand(self, axes: Sequence[Axis]) -> list[tuple[Axis, ...]]:
    """Returns one value per member of the enumerated nodes of a value."""
    values = [tuple(axes)]
    for cut in self.enumerated(axes):
      values = [
        tuple(
          tuple(self._known(cut, n, i) for n in self.leaves(axis))
          for axis in value
        )
        for value in values
        for i in range(self._size[cut])
      ]
    return values

  def _known(self, cut: int, node: int, member: int) -> int:
    """Like `member`, by today's roots, without making anything."""
    return self._by_root()[1].get((cut, node, member), node)

  def _by_root(self) -> tuple[set[int], dict[tuple[int, int, int], int]]:
    """Returns the enumerated nodes, and `_members`, by today's roots."""
    if self._rooted is None:
      members: dict[tuple[int, int, int], int] = {}
      for (s, x, i), part in self._members.items():
        key = (self._root(s), self._root(x), i)
        members.setdefault(key, self._root(part))
      self._rooted = {s for s, _, _ in members}, members
    return self._rooted

  def _seen_leaves(self) -> list[tuple[Axis, ...]]:
    return [tuple(map(self.leaves, axes)) for axes in self._seen]

  def _settle(self) -> bool:
    """Makes the members of enumerated nodes agree; whether that was news."""
    if not self._members:
      return False
    before = (len(self._link), len(self._parts), self._count_roots())
    before += (sum(self._pinned),)
    known: dict[tuple[int, int, int], int] = {}
    for (s, x, i), node in list(self._members.items()):
      cut = self._root(s)
      if cut in self._parts:
        self.pin((cut, x, node), "parts of parts")
        continue
      leaves = self.leaves((x,))
      mine = tuple(self.member(cut, leaf, i) for leaf in leaves)
      if mine != (node,):
        self.unify((node,), mine)
      for leaf, counterpart in zip(leaves, mine, strict=True):
        if self.is_pinned(leaf):
          self.pin((counterpart,))
        first = known.setdefault((cut, leaf, i), counterpart)
        self.unify((first,), (counterpart,))
    held = [
      {leaf for axis in axes for leaf in axis}
      for axes in dict.fromkeys(self._seen_leaves())
    ]
    for cut, leaf, i in list(known):
      if any(leaf in nodes and cut not in nodes for nodes in held):
        self.unify((leaf,), (known[cut, leaf, i],))
    after = (len(self._link), len(self._parts), self._count_roots())
    return before != after + (sum(self._pinned),)

  def _merge_met(self) -> bool:
    """Takes enumeration back where an enumerated node meets itself.

    A kernel may read blocks and give as many: each of its rows reads all the
    blocks, so parts with one number for both are not the whole of it. The
    members have one permutation then. Returns whether there was such a node.
    """
    cuts = self._by_root()[0]
    for axes in dict.fromkeys(self._seen_leaves()) if cuts else ():
      count = collections.Counter(n for axis in axes for n in axis)
      for cut in cuts:
        if count[cut] < 2:
          continue
        own = [key for key in self._members if self._root(key[0]) == cut]
        for key in own:
          self.unify((key[1],), (self._members.pop(key),))
        self.pin((cut,), "blocks of inputs and of outputs that are one axis")
        self._rooted = None
        return True
    return False

  def _count_roots(self) -> int:
    return sum(node == to for node, to in enumerate(self._link))

  def _root(self, node: int) -> int:
    while self._link[node] != node:
      self._link[node] = self._link[self._link[node]]
      node = self._link[node]
    return node

  def _union(self, a: int, b: int) -> None:
    a, b = self._root(a), self._root(b)
    if a != b:
      self._rooted = None
      self._link[b] = a
      self._pinned[a] |= self._pinned[b]

  def _split(self, node: int, first: int) -> Axis:
    """Makes a leaf a product; the second part is nested until proven not."""
    node = self._root(node)
    rest = self._size[node] // first
    pinned = self._pinned[node]
    parts = self.fresh(first, pinned) + self.fresh(rest, pinned)
    self._parts[node] = parts
    return parts
