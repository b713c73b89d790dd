"""Automations of Prefect's that send word of a night: it failed, it refers images, none began."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

from prefect.automations import AutomationCore, EventTrigger, Posture
from prefect.client.orchestration import PrefectClient, get_client
from prefect.events.actions import SendNotification
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.server.schemas.schedules import CronSchedule

from flows.screening import REFERRALS
from thyro_core import NOTICE
from thyro_core.errors import InputError

_NIGHTLY_RUNS = {
    "match": ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
    "match_related": ResourceSpecification(
        {"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.nightly"}
    ),
}
_FAILED_NAME, _REFERS, _MISSING = (
    f"thyro: word of a night that {what}" for what in ("failed", "refers images", "did not begin")
)
NAMES = (_FAILED_NAME, _REFERS, _MISSING)
"""Names of the automations; whoever switches one off on the server keeps it so."""

_GRACE = timedelta(hours=2)
"""A night may wait for the one before it."""
_NIGHTS_AHEAD = 30


@dataclass(frozen=True)
class NotificationPlan:
    """Who gets word, and how often a night is due.

    Attributes:
        block: a notification block on Prefect's server, as `type/name`: `slack-webhook/ward`.
        cron: when the nightly run starts.
        timezone: in which zone.
        has_batch: whether there is a nightly run.
    """

    block: str
    cron: str
    timezone: str
    has_batch: bool


async def ensure_notifications(plan: NotificationPlan | None) -> None:
    """Create the automations that send word, or bring them up to date; without a plan, remove them.

    Raises:
        InputError: the server has no such block.
    """
    async with get_client() as client:
        if plan is None:
            for name in NAMES:
                for automation in await client.read_automations_by_name(name):
                    await client.delete_automation(automation.id)
            return
        block_id = await _block_id(client, plan.block)
        automations = await notifications(plan, block_id)
        for name in NAMES:
            there = await client.read_automations_by_name(name)
            new = next((each for each in automations if each.name == name), None)
            if new is None:
                for automation in there:
                    await client.delete_automation(automation.id)
            elif there:
                new.enabled = there[0].enabled
                await client.update_automation(there[0].id, new)
            else:
                await client.create_automation(new)


async def notifications(plan: NotificationPlan, block_id: UUID) -> Sequence[AutomationCore]:
    """The automations.

    Args:
        plan: who gets word, and when a night is due.
        block_id: of the block that sends it.
    """
    run = "{{ flow_run.name }}: {{ flow_run.state.name }}. {{ flow_run.state.message }}"
    ends = {f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut")}
    of_failure = _automation(
        _FAILED_NAME,
        EventTrigger(**_NIGHTLY_RUNS, expect=ends, posture=Posture.Reactive, threshold=1),
        _send(block_id, "Thyro: a screening failed", run),
    )
    of_referrals = _automation(
        _REFERS,
        EventTrigger(
            match=ResourceSpecification({"prefect.resource.id": "thyro.batch.*"}),
            expect={REFERRALS},
            posture=Posture.Reactive,
            threshold=1,
        ),
        _send(block_id, "Thyro: a worklist is ready", "{{ event.payload.sentence }}"),
    )
    if not plan.has_batch:
        return (of_failure, of_referrals)
    gap = await _longest_gap(plan)
    beginning = {"prefect.flow-run.Running"}
    hours = round((gap + _GRACE).total_seconds() / 3600)
    of_absence = _automation(
        _MISSING,
        EventTrigger(
            **_NIGHTLY_RUNS,
            after=beginning,
            expect=beginning,
            posture=Posture.Proactive,
            threshold=1,
            within=gap + _GRACE,
        ),
        _send(
            block_id,
            "Thyro: no screening began",
            f"No screening has begun for {hours} hours, since {{{{ event.occurred }}}}: look "
            "whether `thyro serve` or the worker runs.",
        ),
    )
    return (of_failure, of_referrals, of_absence)


def _automation(name: str, trigger: EventTrigger, action: SendNotification) -> AutomationCore:
    return AutomationCore(
        name=name,
        description="Made by `thyro serve --notify`; research use only.",
        trigger=trigger,
        actions=[action],
    )


def _send(block_id: UUID, subject: str, body: str) -> SendNotification:
    return SendNotification(block_document_id=block_id, subject=subject, body=f"{body}\n\n{NOTICE}")


async def _longest_gap(plan: NotificationPlan) -> timedelta:
    """The longest time between two nights that are due one after the other."""
    schedule = CronSchedule(cron=plan.cron, timezone=plan.timezone)
    nights = await schedule.get_dates(_NIGHTS_AHEAD, start=datetime.now(UTC))
    return max(later - night for night, later in pairwise(nights))


async def _block_id(client: PrefectClient, block: str) -> UUID:
    kind, _, name = block.partition("/")
    try:
        document = await client.read_block_document_by_name(name, kind, include_secrets=False)
    except ObjectNotFound as error:
        msg = (
            f"--notify {block}: expected a notification block of Prefect's as TYPE/NAME, such as "
            "slack-webhook/ward, found none of that name on the server; make one there, under "
            "Blocks, or correct THYRO_NOTIFY"
        )
        raise InputError(msg) from error
    return document.id
