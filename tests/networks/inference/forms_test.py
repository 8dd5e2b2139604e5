"""Whatever a form matches holds one of its words, so nothing is passed over."""

import hypothesis
import pytest
from hypothesis import strategies as st

from sne_jax.networks.inference import forms, naming
from sne_jax.networks.inference.refusals import adapters, cells, several

FORMS = (
  *(form for form, _ in naming._LEFT_OUT),
  *(form for family in several._ROLES for form in family),
  cells._RECURRENT,
  adapters._WORDS,
)
ASCII = st.characters(max_codepoint=127)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.pattern[:40])
@hypothesis.given(data=st.data())
@hypothesis.settings(max_examples=40, deadline=None)
def test_every_match_of_a_form_holds_one_of_its_words(form, data):
  name = data.draw(st.from_regex(form.compiled, alphabet=ASCII))
  match = form.compiled.search(name)
  assert match is not None
  assert form.may_match(forms.text_of([match.group()]))
  assert form.may_match(forms.text_of(["weight", name, "bias"]))


def test_a_form_may_not_match_where_its_words_are_not():
  form = forms.Form("loss metric", r"(loss|metric)s?$")
  assert not form.may_match(forms.text_of(["conv.weight", "conv.bias"]))
  assert form.may_match(forms.text_of(["conv.weight", "LOSS"]))
