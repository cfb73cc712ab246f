"""numba's decorator, without what numba looks for in vain when a process first loads a function, for 0.2 s.

It imports scipy.linalg to know whether covariances can be had (what multiplies matrices looks again when it is
compiled), and cffi's parser of C for functions that are declared so. When it finds neither it does without.
"""

import sys

_SOUGHT = [name for name in ("scipy.linalg", "cffi") if name not in sys.modules]

sys.modules |= dict.fromkeys(_SOUGHT)  # to import what is None here is an error, which numba takes for its absence
try:
    import numba.core.typing.cffi_utils
    import numba.np.arraymath  # noqa: F401
finally:
    for name in _SOUGHT:
        del sys.modules[name]

from numba import njit  # noqa: E402, F401

# For functions that make no arrays, and those that they call. numba counts references to the arrays that a function is
# given, slices or takes a row of, by an atomic operation each: half the time of code that looks at a few bytes at once.
lean = njit(_nrt=False)
