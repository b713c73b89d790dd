"""Promote a finished study's architecture: verified, bundled, compared, made champion."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from thyro_core.config import Architecture
from thyro_core.config.networks import NetworkName
from thyro_core.errors import InputError, ThyroError
from thyro_core.registry import champion as champions
from thyro_core.registry.build import BundleSpec, make_bundle
from thyro_core.registry.bundle import Bundle, load_bundle
from thyro_core.registry.card_bands import BandShares
from thyro_core.registry.gate import Verdict, compare_with_champion
from thyro_core.store.store import Store
from thyro_core.study.plan import StudyPlan, load_current_plan
from thyro_core.study.verify.verify import verify_study

NO_CHAMPION = "not compared: there was no champion"

ROUTINE_SHARE, REFER_SHARE = 0.05, 0.1
"""Default shares of conformal bands."""

_Share = Annotated[float, Field(gt=0.0, le=0.5)]
_WHY = "promoted by hand"


class PromotionConfig(BaseModel):
    """What to promote, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    study_id: str = Field(
        pattern=r"^s(null)?[0-9a-f]{16}$",
        description="The finished study whose models are bundled.",
    )
    architecture: Literal["first", NetworkName] = Field(
        "first", description="Which of its networks; first: the study's first one."
    )
    sensitivity: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.95,
        description="Sensitivity whose lower confidence bound the threshold keeps above it.",
    )
    bands: Literal["threshold", "conformal"] = Field(
        "threshold",
        description="How a worklist's bands are chosen: refer from the threshold on, or by "
        "conformal prediction with the shares that follow.",
    )
    routine_share: _Share = Field(
        ROUTINE_SHARE,
        description="With conformal bands: most patients, of those with malignant images, with a "
        "malignant image called routine.",
    )
    refer_share: _Share = Field(
        REFER_SHARE,
        description="With conformal bands: most patients, of those with benign images, with a "
        "benign image called refer.",
    )
    force: bool = Field(
        False, description="Promote even if the champion is better, or cannot be compared."
    )
    reason: Annotated[str, Field(max_length=champions.MOST_LETTERS)] = Field(
        "", description="Why, one line; kept for ever, so name nobody. Required with force."
    )

    @model_validator(mode="after")
    def _force_has_a_reason(self) -> Self:
        if self.force and not self.reason.strip():
            msg = "force needs a reason, which is kept in the registry"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _shares_belong_to_conformal_bands(self) -> Self:
        is_other = (self.routine_share, self.refer_share) != (ROUTINE_SHARE, REFER_SHARE)
        if is_other and self.bands != "conformal":
            msg = "routine_share and refer_share take bands=conformal; without it they do nothing"
            raise ValueError(msg)
        return self

    @property
    def shares(self) -> BandShares | None:
        """The shares of conformal bands; None: bands by the threshold."""
        if self.bands == "threshold":
            return None
        return BandShares(self.routine_share, self.refer_share)


class GateError(ThyroError):
    """The champion is better, or there are no images to compare the two on."""


@dataclass(frozen=True)
class Promotion:
    """The result of a promotion."""

    bundle: Bundle
    change: champions.Change | None
    """None: the model was the champion already."""


def promote(
    store: Store,
    config: PromotionConfig,
    scratch: Path,
    say: Callable[[str], None] = lambda _: None,
) -> Promotion:
    """Make a study's models the champion, unless they are worse.

    The study is verified first. A refused model's bundle is not made. The same call again changes
    nothing.

    Args:
        store: holds the study and the registry.
        config: what to promote.
        scratch: node-local folder.
        say: receives progress, one short line each.

    Raises:
        InputError: there is no such study or architecture, it kept no models, its labels are
            permuted, or it has too few patients for the declared shares.
        GateError: the champion is better, or cannot be compared, or the network started from
            random weights, and `force` is off.
        ThyroError: the study does not verify.
    """
    plan = load_current_plan(store, config.study_id)
    if plan.config.permute_labels:
        msg = (
            f"study {plan.study_id}: expected a study of true labels, found permuted ones; its "
            "networks learned chance: promote a study without permute_labels"
        )
        raise InputError(msg)
    architecture = chosen_architecture(plan, config.architecture)
    if plan.weights[architecture].sha256 is None and not config.force:
        msg = (
            f"study {plan.study_id}, {architecture}: expected a network that started from trained "
            "weights, found one that started from random ones, whose figures are far below what "
            "the network can do; study it again with starting weights (see THYRO_WEIGHTS), or to "
            "promote it all the same, give --force and --reason TEXT"
        )
        raise GateError(msg)
    why = champions.checked_reason(config.reason or _WHY)

    @cache
    def compare(champion: str) -> Verdict:
        return compare_with_champion(
            store, plan, architecture, load_bundle(store, champion), scratch=scratch
        )

    def gate(champion: str | None) -> str:
        where = f"study {plan.study_id}, {architecture}"
        return _gate(compare, champion, where, force=config.force)

    current = champions.read_champion(store)
    gate(current.model_id if current else None)
    _verify(store, plan.study_id, say)
    say("bundling the models")
    spec = BundleSpec(plan, architecture, config.sensitivity, config.shares)
    bundle = make_bundle(store, spec, scratch)
    how: Literal["promoted", "forced"] = "forced" if config.force else "promoted"
    return Promotion(bundle, champions.set_champion(store, bundle.model_id, how, why, gate))


def chosen_architecture(plan: StudyPlan, name: str) -> Architecture:
    """The network of a study that a name stands for.

    Args:
        plan: the study.
        name: of an architecture; `first`: the study's first one.

    Raises:
        InputError: the study did not train it.
    """
    for architecture in plan.config.architectures:
        if name in {"first", architecture}:
            return architecture
    msg = (
        f"study {plan.study_id}: expected one of {', '.join(plan.config.architectures)}, found "
        f"{name}; name one that it trained"
    )
    raise InputError(msg)


def _verify(store: Store, study_id: str, say: Callable[[str], None]) -> None:
    failures = []
    for check in verify_study(store, study_id):
        say(f"verifying: {check.name}")
        if not check.is_passed:
            failures.append(f"{check.name}: {check.detail}")
    if failures:
        msg = (
            f"study {study_id}: expected a finished study that verifies, found "
            f"{len(failures)} failed checks: {'; '.join(failures)}"
        )
        raise ThyroError(msg)


def _gate(
    compare: Callable[[str], Verdict], champion: str | None, where: str, *, force: bool
) -> str:
    if champion is None:
        return NO_CHAMPION
    try:
        verdict = compare(champion)
    except InputError as error:
        # A champion that nobody can load any more must not block every later one.
        if not force:
            raise
        return f"not compared with {champion}: {error}"
    if (verdict.worse or not verdict.is_compared) and not force:
        msg = (
            f"{where}: expected a model no worse than the champion on images that neither was "
            f"trained on, found {verdict.text}; to promote it all the same, give --force and "
            "--reason TEXT"
        )
        raise GateError(msg)
    return verdict.text
