"""Which local features of a set of images are alike: found without comparing every two.

A feature's description is multiplied by random signs. Which of 32 such sums is largest, and its
sign, is a symbol that alike features often share (Andoni et al. 2015, "Practical and optimal LSH
for angular distance"). Eight symbols are put one after the other in several orders, the features
sorted by each, and each compared with the next few: by the signs of the same sums, of which alike
features differ in few (Charikar 2002, "Similarity estimation techniques from rounding algorithms"),
then by the descriptions themselves.

That search is not exact. Work and memory grow with the number of features, not of pairs; in a
larger set a place among the next few is harder to come by.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from thyro_core.host import cores
from thyro_core.imaging.local_features import (
    LEAST_COSINE,
    MOST_OCTAVES,
    PATTERN,
    PATTERN_NORM,
    PLACE_STEPS,
)
from thyro_core.types import IntArray

Patterns = npt.NDArray[np.int8]
Places = npt.NDArray[np.int16]
Words = npt.NDArray[np.uint64]
Symbols = npt.NDArray[np.uint8]

_SYMBOLS, _SUMS = 8, 32  # of a feature, and sums that make one
_SYMBOL_BITS = 6  # which sum is largest, and its sign
_WORDS = 2  # of 64 signs
_SORTED_BY = 6  # symbols of an order: what fits beside the number of a feature
_ORDERS = 16  # how often features are sorted
_NEIGHBOURS = 6  # next features that each is compared with
_DISTANCE, _DISTANCE_OF_BOTH = 14, 28  # most signs that differ, of the first word and of both
_EQUAL, _EQUAL_NEIGHBOURS = 4, 2  # signs of 128 in which print differs, and next features then
_SCATTER = 0x9E3779B97F4A7C15  # odd: to multiply by it permutes numbers of so many bits
_SEED = 0
_ROWS_AT_ONCE = 1 << 11  # whose sums fit in a core's cache
_PAIRS_AT_ONCE = 1 << 14
_PLACES_AT_ONCE = 1 << 15  # of an order
_Part = TypeVar("_Part")
_Result = TypeVar("_Result")


def alike_features(
    patterns: Patterns, places: Places, owners: IntArray
) -> tuple[IntArray, IntArray]:
    """Alike features of two different images.

    Args:
        patterns: int8 (n, PATTERN), of all images, one after the other.
        places: int16 (n, 3), as `LocalFeatures` has them; only sizes are read.
        owners: (n,), the image of each.

    Returns:
        Positions of the two features, the first one's smaller; sorted, no pair twice.
    """
    symbols, words = codes(patterns)

    def in_order(k: int) -> IntArray:
        return _neighbours(symbols[_order(k)], words, owners, pow(_SCATTER, k + 1, 1 << 64))

    n = len(patterns)
    sizes = places[:, 2].astype(np.int32)
    pairs = _distinct(np.concatenate(_in_threads(in_order, range(_ORDERS))))

    def compare(start: int) -> IntArray:
        some = pairs[start : start + _PAIRS_AT_ONCE]
        i, j = np.divmod(some, n)
        one, other = patterns.take(i, axis=0), patterns.take(j, axis=0)
        products = np.einsum("ij,ij->i", one, other, dtype=np.int32)
        octaves = np.abs(sizes.take(i) - sizes.take(j)) / PLACE_STEPS
        near = (products >= LEAST_COSINE * PATTERN_NORM**2) & (octaves <= MOST_OCTAVES)
        return np.asarray(some[near])

    alike = _in_threads(compare, range(0, len(pairs), _PAIRS_AT_ONCE))
    left, right = np.divmod(np.concatenate([np.empty(0, np.int64), *alike]), n)
    return left, right


def codes(patterns: Patterns) -> tuple[Symbols, Words]:
    """Symbols uint8 (_SYMBOLS, n) and signs uint64 (n, _WORDS) of random sums.

    The sums are of whole numbers, so exact in whatever order.
    """
    signs = random_signs().astype(np.float32)
    symbols = np.empty((_SYMBOLS, len(patterns)), np.uint8)
    words = np.empty((len(patterns), _WORDS), np.uint64)

    def fill(start: int) -> None:
        rows = slice(start, start + _ROWS_AT_ONCE)
        sums = patterns[rows].astype(np.float32) @ signs
        positive = np.packbits(sums[:, : 64 * _WORDS] > 0, axis=1)
        words[rows] = positive.view(">u8")
        sums = sums.reshape(-1, _SUMS)
        largest = np.abs(sums).argmax(axis=1)
        is_positive = sums.ravel()[np.arange(len(sums)) * _SUMS + largest] > 0
        symbols[:, rows] = (2 * largest + is_positive).reshape(-1, _SYMBOLS).T

    _in_threads(fill, range(0, len(patterns), _ROWS_AT_ONCE))
    return symbols, words


def random_signs() -> npt.NDArray[np.int8]:
    """1 or -1, (PATTERN, sums of all symbols); drawn from a stream that NumPy promises to keep."""
    bits = np.unpackbits(
        np.random.PCG64(_SEED)
        .random_raw(PATTERN * _SYMBOLS * _SUMS // 64)
        .astype("<u8")
        .view(np.uint8)
    )
    return bits.reshape(PATTERN, -1).astype(np.int8) * 2 - 1


def _order(k: int) -> list[int]:
    """An order of symbols: no two of the first 24 begin with the same two."""
    first, step = k % _SYMBOLS, (1, 3, 5)[k // _SYMBOLS]
    return [(first + place * step) % _SYMBOLS for place in range(_SORTED_BY)]


def _neighbours(symbols: Symbols, words: Words, owners: IntArray, scatter: int) -> IntArray:
    """Features near each other in one order and in their signs, as low * n + high.

    Args:
        symbols: (k, n), first the one that decides first.
        words: (n, _WORDS).
        owners: (n,).
        scatter: an odd number; each one gives equal features another order.
    """
    order = _ascending(symbols, scatter)
    pairs = [np.empty(0, np.int64)]
    for start in range(0, len(order), _PLACES_AT_ONCE):
        some = order[start : start + _PLACES_AT_ONCE + _NEIGHBOURS]
        first, second = words.take(some, axis=0).T
        for step in range(1, _NEIGHBOURS + 1):
            here = slice(min(_PLACES_AT_ONCE, max(0, len(some) - step)))
            apart = np.bitwise_count(first[step:][here] ^ first[here])
            near = np.flatnonzero(apart <= _DISTANCE)
            both = apart[near] + np.bitwise_count(second[near] ^ second[near + step])
            is_rare = (both > _EQUAL) | (step <= _EQUAL_NEIGHBOURS)
            near = near[(both <= _DISTANCE_OF_BOTH) & is_rare]
            one, other = some.take(near), some.take(near + step)
            low, high = np.minimum(one, other), np.maximum(one, other)
            pairs.append((low * len(order) + high)[owners.take(low) != owners.take(high)])
    return _distinct(np.concatenate(pairs))


def _ascending(symbols: Symbols, scatter: int) -> IntArray:
    """The features' numbers in the order of their symbols, those of equal ones scattered."""
    n = symbols.shape[1]
    bits = max(1, (n - 1).bit_length())
    mask = np.uint64((1 << bits) - 1)
    keys = np.zeros(n, np.uint64)
    for start in range(0, n, _PLACES_AT_ONCE):
        some = keys[start : start + _PLACES_AT_ONCE]
        for symbol in symbols:
            some <<= np.uint64(_SYMBOL_BITS)
            some |= symbol[start : start + _PLACES_AT_ONCE]
        some <<= np.uint64(64 - _SYMBOL_BITS * len(symbols))
    # Print is equal in all images of a scanner. In the order of the images each would meet the same
    # next few in all its features, and be a candidate of all of them.
    numbers = np.arange(n, dtype=np.uint64) * np.uint64(scatter) & mask
    # Key and number in one word: sorting words is ten times faster than sorting positions.
    keys &= ~mask
    keys |= numbers
    keys.sort()
    keys &= mask
    keys *= np.uint64(pow(scatter, -1, 1 << bits))
    keys &= mask
    return keys.view(np.int64)


def _distinct(numbers: IntArray) -> IntArray:
    """The different numbers, ascending; `np.unique` hashes them, which takes 30 times as long."""
    numbers = np.sort(numbers)
    return numbers[np.append(True, numbers[1:] != numbers[:-1])] if len(numbers) else numbers


def _in_threads(work: Callable[[_Part], _Result], parts: Iterable[_Part]) -> list[_Result]:
    """The results in the order of the parts: NumPy lets go of the interpreter's lock."""
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(work, parts))
