"""Sums over the pixels of grey images: whole numbers, which no order of summation can change."""

import math

import cv2

from thyro_core.types import Grey


def total(grey: Grey) -> int:
    """Sum of the grey levels of an image, (H, W)."""
    return int(cv2.sumElems(grey)[0])


def squares(grey: Grey) -> int:
    """Sum of the squared grey levels of an image, (H, W)."""
    # OpenCV takes the root of its exact sum, and squares it again.
    return round(cv2.norm(grey, cv2.NORM_L2SQR))


def products(one: Grey, other: Grey) -> int:
    """Sum of the products of two images' grey levels, both (H, W)."""
    apart = round(cv2.norm(one, other, cv2.NORM_L2SQR))
    return (squares(one) + squares(other) - apart) // 2


def mean_and_sd(n: int, first: int, second: int) -> tuple[float, float]:
    """Mean and standard deviation (of the population) of numbers.

    Args:
        n: how many, at least one.
        first: their sum.
        second: the sum of their squares.
    """
    return first / n, math.sqrt(n * second - first * first) / n
