"""Forms of names that are tried only where a file has words of them.

A file has hundreds of names, few of them of any form. Each form says which
words its matches hold; where none of them occurs in any name, its expression
is neither compiled nor tried.
"""

import functools
import re
from collections.abc import Iterable


class Form:
  """A regular expression, and words of which every match holds one."""

  def __init__(self, words: str, pattern: str, flags: int = 0):
    """Takes an expression.

    Args:
      words: in small letters, with spaces between them.
      pattern: the expression.
      flags: of `re`.
    """
    self.words = tuple(words.split())
    self.pattern, self.flags = pattern, flags

  def may_match(self, text: str) -> bool:
    """Whether a name of a text of `text_of` may be of this form."""
    return any(word in text for word in self.words)

  @functools.cached_property
  def compiled(self) -> re.Pattern:
    """The expression."""
    return re.compile(self.pattern, self.flags)


def text_of(names: Iterable[str]) -> str:
  """Returns all names in small letters, to look for words in."""
  return "\n".join(names).casefold()
