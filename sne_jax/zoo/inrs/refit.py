"""Networks fitted to other images, as those of a zoo were fitted to theirs.

Dimensions: `N` images of `C` channels, height `H`, width `W`.
"""

import jax
import numpy as np
from jaxtyping import UInt8

from sne_jax.zoo.classifiers import tiles
from sne_jax.zoo.inrs import fit as inr_fit
from sne_jax.zoo.inrs import image_options, image_zoo
from sne_jax.zoo.store import partial as partial_lib


def fitted(
  options: image_options.ImageInrOptions,
  images: UInt8[np.ndarray, "N C H W"],
  *,
  progress: partial_lib.Progress | None = None,
) -> inr_fit.Fit:
  """Fits a network to each image.

  First weights are functions of the options' seed and an image's place, and not
  those that the zoo has given it.

  Args:
    options: how networks are fitted.
    images: the images.
    progress: is told the networks that are done.

  Returns:
    Weights `[N, P]`; errors and steps. An error is in the units of the form.
  """
  spec = image_options.inr_spec(options, images.shape[1])
  devices = tuple(jax.local_devices())
  shape = images.shape[1:]
  start, advance, tile = image_zoo.fit_fns(options, shape, devices)
  batch = options.batch_members or image_zoo.free_batch_members(options, shape)
  batch = min(batch, len(images))
  sizes = inr_fit.batch_sizes(batch, len(devices))
  sizes = [tiles.even_slots(size, tile, len(devices)) for size in sizes]
  sizes = sorted(set(sizes), reverse=True)
  root = jax.random.fold_in(
    jax.random.key(options.seed, impl="threefry2x32"), _ANEW
  )
  keys = jax.vmap(jax.random.fold_in, (None, 0))(root, np.arange(len(images)))
  report = progress or (lambda *_: None)
  parts = []
  for first in range(0, len(images), batch):
    part = slice(first, first + batch)
    parts.append(
      inr_fit.fit_batch(
        spec,
        start,
        advance,
        keys[part],
        image_options.signals(options, images[part]),
        sizes=sizes,
        devices=devices,
        max_steps=options.max_steps,
        check_every=options.check_every,
        tolerance=options.tolerance,
        on_done=lambda done, first=first: report(
          first + done, len(images), "fitting networks anew"
        ),
      )
    )
  return inr_fit.Fit(*map(np.concatenate, zip(*parts, strict=True)))


_ANEW = 2
"""Folded into the seed's key, where a zoo folds a 1 for test images, or a 0."""
