"""A sine whose derivative costs next to nothing.

Training a sine network needs the sine and the cosine of every hidden value, and
so does the training of inputs. Computed together they share the range
reduction; on a CPU this is a tenth of the time of the library's own sine.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# pi as a sum of three float32 numbers. The first has so few digits that its
# product with a whole number of half turns below 2^16 is exact.
_PI = (3.140625, 9.67502593994140625e-4, 1.509957990978376432e-7)

# Least-maximum fits on [-pi/2, pi/2] in u = r^2, by reweighted least squares:
# sin r = r + r u S(u) to 5e-9, cos r = 1 - u/2 + u^2 C(u) to 4e-10.
_SIN = (-1.6666657e-1, 8.3330162e-3, -1.9806548e-4, 2.5999032e-6)
_COS = (4.1666657e-2, -1.3888568e-3, 2.4769241e-5, -2.6192484e-7)


@jax.custom_jvp
def sine(z: Float[Array, "..."]) -> Float[Array, "..."]:
  """Returns sin(z) of float32 `z`, any shape.

  The error of value and derivative is below 2e-7 for |z| <= 1000 and grows
  with |z| beyond, but not beyond [-1, 1]. Not finite where `z` is not.
  """
  return _sine_cosine(z)[0]


@sine.defjvp
def _sine_jvp(primals, tangents):
  value, slope = _sine_cosine(primals[0])
  return value, slope * tangents[0]


def _sine_cosine(z):
  """Returns sin(z) and cos(z)."""
  turns = jnp.round(z * np.float32(1 / np.pi))
  r = z
  for part in _PI:
    r = r - turns * np.float32(part)
  r = jnp.clip(r, -1.6, 1.6)  # No more, but where `z` has no digits left.
  u = r * r
  value = r + r * u * _horner(_SIN, u)
  slope = 1 - 0.5 * u + u * u * _horner(_COS, u)
  sign = 1 - 2 * jnp.abs(turns - 2 * jnp.floor(turns * 0.5))
  return value * sign, slope * sign


def _horner(coefficients, u):
  """Returns the polynomial in `u` with the constant coefficient first."""
  total = coefficients[-1]
  for coefficient in coefficients[-2::-1]:
    total = coefficient + u * total
  return total
