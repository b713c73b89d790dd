"""What an ensemble of all networks would score, from the average of those that may be counted.

Out of fold an image is scored by the few networks that were not trained on its group, in use by all
of them. The fewer networks are averaged, the more of their own error stays, and the more the scores
spread: a regression of the label on them is too flat for scores in use (regression dilution).
Log odds are taken as a part that the networks share and an error of each network.
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

    def expected(self, margin: FloatArray, members: IntArray) -> FloatArray:
        """Log odds that all networks would give on average, where `members` of them give `margin`.

        Regression calibration (Carroll, Ruppert, Stefanski and Crainiceanu, Measurement Error in
        Nonlinear Models, 2nd ed. 2006, chapter 4): these take the margin's place in a regression
        of the label, whose slope is then that for scores in use.

        Args:
            margin: (m,), log odds of the mean over `members` networks.
            members: (m,), at least 1.
        """
        return self.centre + self._shrinkage(members) * (margin - self.centre)

    def matched(self, margin: FloatArray, members: IntArray) -> FloatArray:
        """Log odds with the variance that scores of all networks have.

        `expected` spreads less than that, as each estimate does.

        Args:
            margin: (m,), log odds of the mean over `members` networks.
            members: (m,), at least 1.
        """
        return self.centre + np.sqrt(self._shrinkage(members)) * (margin - self.centre)

    def residual(self, members: IntArray) -> FloatArray:
        """Standard deviation of the log odds of all networks about `expected`.

        Args:
            members: (m,), at least 1.
        """
        whole = self.between + self.within / self.networks
        return np.asarray(np.sqrt(whole * (1 - self._shrinkage(members))))

    def _shrinkage(self, members: IntArray) -> FloatArray:
        """Variance of scores of all networks over that of scores of `members`."""
        variance = self.between + self.within / members
        whole = self.between + self.within / self.networks
        return np.divide(whole, variance, out=np.ones_like(variance), where=variance > 0)


def member_variance(ensemble: OutOfFoldEnsemble) -> MemberVariance:
    """The parts of the variance, by the method of moments.

    Args:
        ensemble: m images, at least one.
    """
    several = ensemble.members > 1
    freedom = (ensemble.members - 1)[several]
    squares = float((freedom * ensemble.member_variance[several]).sum())
    within = squares / int(freedom.sum()) if several.any() else 0.0
    centre = float(ensemble.margin.mean())
    between = float(((ensemble.margin - centre) ** 2 - within / ensemble.members).mean())
    return MemberVariance(centre, max(between, 0.0), within, ensemble.networks)
