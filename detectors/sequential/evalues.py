"""E-values of counts: how much more likely the counts are if the odds of a bad request are higher by a factor.

Of n requests x are bad. The null hypothesis is that each is bad with probability at most r. The alternative raises the
odds r / (1 - r) by a factor w > 1, which makes the probability p = w r / (1 - r + w r). The likelihood ratio is

    e = (p / r)^x ((1 - p) / (1 - r))^(n - x) = w^x / (1 - r + w r)^n

Its mean is 1 at r and less below r, so e is an e-value of the whole null hypothesis: large values are rare, P(e >= c)
<= 1/c, for every true probability up to r, even if it changes from request to request. A mixture over several w keeps
that property and detects small and large effects.

    Vovk, Wang: E-values: calibration, combination and applications. Annals of Statistics 49 (2021), arXiv:1912.06116.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Float


def log_evalues(bad: NDArray[np.int64], total: NDArray[np.int64], null: Float | float, log_odds: Float) -> Float:
    """Return log e of every factor and row, shape (k, n).

    `bad` and `total` are counts (n,), `null` is the probability r, one for all or (n,), `log_odds` is log w (k,).

    >>> import numpy as np
    >>> odds = np.log([4.0])
    >>> float(np.exp(log_evalues(np.array([1]), np.array([1]), 0.25, odds))[0, 0])  # p = 4/7: (4/7) / (1/4)
    2.2857142857142856
    >>> float(np.exp(log_evalues(np.array([0]), np.array([1]), 0.25, odds)).round(4)[0, 0])  # (3/7) / (3/4)
    0.5714
    """
    factor = log_odds[:, np.newaxis]
    result: Float = bad * factor - total * np.log1p(np.expm1(factor) * null)
    return result


def log_mean(logs: Float) -> Float:
    """Return the logarithm of the mean over the first axis of numbers given by their logarithms, (k, n) to (n,).

    >>> import numpy as np
    >>> float(np.exp(log_mean(np.log([[1.0], [3.0]]))).round(12)[0])
    2.0
    >>> log_mean(np.array([[-np.inf], [-np.inf]]))
    array([-inf])
    """
    top = logs.max(axis=0)
    # If all are zero, minus infinity minus itself would be nan.
    shift = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        result: Float = np.log(np.exp(logs - shift).mean(axis=0)) + shift
    return result


def checked_odds(odds: Sequence[float]) -> Float:
    """Return the logarithms of factors on the odds, (k,). Raises ValueError unless all are greater than 1."""
    if not odds or min(odds) <= 1:
        raise ValueError(f"factors on the odds must be greater than 1: {tuple(odds)}")
    return np.log(np.array(odds, dtype=np.float64))


def checked_counts(part: NDArray[np.int64], whole: NDArray[np.int64], rows: int) -> None:
    """Raises ValueError unless both have shape (rows,) and 0 <= part <= whole everywhere."""
    if part.shape != (rows,) or whole.shape != (rows,):
        raise ValueError(f"counts of {rows} rows are wanted, of shapes {part.shape} and {whole.shape} were given")
    wrong = np.flatnonzero((part < 0) | (part > whole))
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(f"row {row}: {part[row]} of {whole[row]} is not a part of a whole")
