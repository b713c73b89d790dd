"""What an ensemble of all networks would score, from the average of those that may be counted.

Out of fold an image is scored by the few networks whose split tested it, in use by all
of them. The fewer networks are averaged, the more of their own error stays, and the more the scores
spread: a regression of the label on them is too flat for scores in use (regression dilution).
Log odds are taken as a part that the networks share and an error of each network. The log odds of a
mean probability are taken for the mean of log odds; where the errors spread far more than what
the networks share they are nearer to 0, and a slope for all networks is too steep by 10 % and more.
"""

from typing import NamedTuple

import numpy as np

from thyro_core.evaluation.out_of_fold import OutOfFoldEnsemble
from thyro_core.types import FloatArray, IntArray


class MemberVariance(NamedTuple):
    """The parts of the variance of an ensemble's log odds."""

    centre: float
    """Mean over images."""
    between: float
    """Variance over images of the part that networks share."""
    within: float
    """Variance over networks of an image's log odds; 0 where no image has two networks."""
    networks: int
    """Networks of the ensemble in use."""

    def equivalent(self, margin: FloatArray, members: IntArray) -> FloatArray:
        """The score of all networks that says as much as `margin` does from `members` of them.

        Let scores be normal in each class, of one variance (linear discriminant analysis). Then the
        label's log odds are linear in a score of k networks, with a slope inversely proportional
        to the variance, between + within / k, and where the score stands midway between the
        classes they are those of the prevalence, whatever k is. With `centre` midway and `between`
        of images of one class (`ClassVariances.midway`), equivalent scores have one slope for any
        number of networks: no average over other choices of networks is left to take.

        Args:
            margin: (m,), log odds of the mean over `members` networks.
            members: (m,), at least 1.
        """
        return self.centre + self._shrinkage(members) * (margin - self.centre)

    def rescale(self, margin: FloatArray, members: IntArray) -> FloatArray:
        """Log odds with the mean and the variance that scores of all networks have.

        Args:
            margin: (m,), log odds of the mean over `members` networks.
            members: (m,), at least 1.
        """
        return self.centre + np.sqrt(self._shrinkage(members)) * (margin - self.centre)

    def _shrinkage(self, members: IntArray) -> FloatArray:
        """Variance of scores of all networks over that of scores of `members`."""
        variance = self.between + self.within / members
        whole = self.between + self.within / self.networks
        return np.divide(whole, variance, out=np.ones_like(variance), where=variance > 0)


def member_variance(ensemble: OutOfFoldEnsemble, within: float | None = None) -> MemberVariance:
    """The parts of the variance, by the method of moments.

    Args:
        ensemble: m images, at least one.
        within: that part, where it is known better from more images.
    """
    if within is None:
        several = ensemble.members > 1
        freedom = (ensemble.members - 1)[several]
        squares = float((freedom * ensemble.member_variance[several]).sum())
        within = squares / int(freedom.sum()) if several.any() else 0.0
    centre = float(ensemble.margin.mean())
    between = float(((ensemble.margin - centre) ** 2 - within / ensemble.members).mean())
    return MemberVariance(centre, max(between, 0.0), within, ensemble.networks)


class ClassVariances(NamedTuple):
    """The parts of the variance among images of one class, with one `within`."""

    benign: MemberVariance
    malignant: MemberVariance
    midway: MemberVariance
    """`centre` midway between the classes, `between` their mean over images."""

    def rescale(self, ensemble: OutOfFoldEnsemble) -> FloatArray:
        """Log odds that have in each class the mean and variance of scores of all networks.

        Args:
            ensemble: m images.

        Returns:
            (m,).
        """
        benign, malignant = (
            part.rescale(ensemble.margin, ensemble.members)
            for part in (self.benign, self.malignant)
        )
        return np.where(ensemble.label == 1, malignant, benign)


def class_variances(ensemble: OutOfFoldEnsemble) -> ClassVariances:
    """The parts of the variance in each class.

    Args:
        ensemble: images of both classes.
    """
    within = member_variance(ensemble).within
    benign, malignant = (
        member_variance(ensemble.part(ensemble.label == value), within) for value in (0, 1)
    )
    share = float(ensemble.label.mean())
    midway = MemberVariance(
        (benign.centre + malignant.centre) / 2,
        (1 - share) * benign.between + share * malignant.between,
        within,
        ensemble.networks,
    )
    return ClassVariances(benign, malignant, midway)
