"""What `thyro serve` offers, as data; `deployments/prefect.yaml` says the same for work pools."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from typing import Literal
from zoneinfo import available_timezones

from prefect import Flow
from prefect.automations import AutomationCore, EventTrigger, Posture
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import (
    ConcurrencyLimitConfig,
    ConcurrencyLimitStrategy,
    StateType,
)
from prefect.deployments.runner import RunnerDeployment
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron, Schedule
from prefect.types.entrypoint import EntrypointType

from thyro_core.errors import InputError

TAG = "thyro"
"""Every run has it: it is how the automation tells our runs from others on a shared server."""

HEARTBEAT_SECONDS = 30
"""How often a run says that it is alive."""

_MISSED_BEATS = 4
_BEGIN_SECONDS = 900
"""How long a run may take to begin once it has its turn: a node may have to join, and to fetch the
image."""

NIGHTLY = "nightly"
"""The name of our own schedule; every other one is somebody else's."""

_OVER = ("Completed", "Failed", "Cancelled", "Crashed", "TimedOut")
_BEGINNING = ("Pending", "Submitting", "InfrastructurePending")
_HEARTBEAT = "prefect.flow-run.heartbeat"


@dataclass(frozen=True)
class EntryPoint:
    """One deployment.

    Attributes:
        name: of the deployment and of its flow, which stands in the module of that name.
        description: what a person reads before starting it.
        tags: besides `thyro`.
        at_once: how many runs of it may be running; a further one waits for its turn.
        nightly: whether it has the nightly schedule.
    """

    name: str
    description: str
    tags: tuple[str, ...]
    at_once: int = 1
    nightly: bool = False

    @property
    def entrypoint(self) -> str:
        """Where a worker finds the flow: an import path, the same on every machine."""
        return f"flows.{self.name}.{self.name}"

    @property
    def all_tags(self) -> list[str]:
        """With the tag that all have."""
        return [TAG, *self.tags]


COLLISION: Literal["ENQUEUE"] = "ENQUEUE"
"""What happens to a run too many: it waits. The other choice, CANCEL_NEW, would lose a night's
worklist without a word if the night before takes longer than a day."""

ENTRY_POINTS: tuple[EntryPoint, ...] = (
    EntryPoint(
        "study",
        "How well do the classifiers tell benign from malignant on an image set? Trains and tests "
        "them on ten splits; takes minutes to hours. Started again with the same values, it goes "
        "on where it stopped. Research use only.",
        ("training",),
    ),
    EntryPoint(
        "ingest",
        "Look at an image set before a study: what would take part, what is excluded and why. "
        "Takes seconds to minutes and trains nothing. Research use only.",
        ("data",),
        at_once=2,
    ),
    EntryPoint(
        "promote",
        "Make the models of a finished study the ones that the nightly run uses, unless those in "
        "use are better on the same images. Takes seconds to minutes. Research use only.",
        ("models",),
    ),
    EntryPoint(
        "evaluate",
        "Does a model hold on the labelled images of another hospital? Scores them, fits nothing "
        "on them, and sets the figures beside the model's own. Takes minutes. Research use only.",
        ("models",),
    ),
    EntryPoint(
        "screening",
        "Score the new images of a batch with the model in use, and write the worklist of what a "
        "radiologist should read first. Runs each night by itself where a batch is configured. "
        "Research use only.",
        ("nightly",),
        nightly=True,
    ),
)
"""All deployments."""


@dataclass(frozen=True)
class NightlySchedule:
    """When the nightly run starts, and on what.

    Attributes:
        cron: minute, hour, day of month, month, day of week.
        timezone: IANA name of the zone in which `cron` is read. Where a clock is put forward over
            the hour, the run comes an hour early that night; each night has one.
        batch: address of the night's images; None: the schedule is there, but inactive.
    """

    cron: str
    timezone: str
    batch: str | None

    def schedule(self) -> Schedule:
        """As Prefect wants it.

        Raises:
            InputError: no such time zone, or no cron expression.
        """
        if self.timezone not in available_timezones():
            msg = (
                f"--timezone {self.timezone}: expected a name of the IANA list such as "
                "Europe/Berlin or UTC, found no such zone; correct it, or THYRO_TIMEZONE"
            )
            raise InputError(msg)
        try:
            minute, hour, day, month, weekday = self.cron.split()
            cron = f"{minute} {hour} {day} {month} {weekday}"
            return Cron(cron, timezone=self.timezone, active=bool(self.batch), slug=NIGHTLY)
        except ValueError as error:
            msg = (
                f"--cron {self.cron}: expected five fields such as '0 2 * * *' (02:00 each night), "
                f"found: {error}; correct it, or THYRO_SCREENING_CRON"
            )
            raise InputError(msg) from error


def deployments(
    night: NightlySchedule, entry_point: Sequence[EntryPoint] = ENTRY_POINTS
) -> list[RunnerDeployment]:
    """Everything to serve.

    Raises:
        InputError: the night's time zone or cron expression is none.
    """
    schedule = night.schedule()
    return [_deployment(entry, night, schedule) for entry in entry_point]


def load_flow(entry_point: EntryPoint) -> Flow[..., object]:
    """The flow of a deployment."""
    flow: Flow[..., object] = getattr(import_module(f"flows.{entry_point.name}"), entry_point.name)
    return flow


def _deployment(
    entry_point: EntryPoint, night: NightlySchedule, schedule: Schedule
) -> RunnerDeployment:
    return RunnerDeployment.from_flow(
        load_flow(entry_point),
        name=entry_point.name,
        description=entry_point.description,
        tags=entry_point.all_tags,
        # A server that is stopped pauses its deployments: nobody is there to run them.
        paused=False,
        schedule=schedule if entry_point.nightly else None,
        parameters={"batch": night.batch} if entry_point.nightly and night.batch else None,
        concurrency_limit=ConcurrencyLimitConfig(
            limit=entry_point.at_once, collision_strategy=ConcurrencyLimitStrategy(COLLISION)
        ),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )


async def keep_schedules(entries: Iterable[RunnerDeployment]) -> None:
    """Add the schedules that people gave the deployments on the server.

    The server replaces what it has by what a deployment brings along.
    """
    async with get_client() as client:
        for entry in entries:
            try:
                there = await client.read_deployment_by_name(entry.full_name)
            except ObjectNotFound:
                continue
            others = [
                DeploymentScheduleCreate(
                    schedule=schedule.schedule,
                    active=schedule.active,
                    max_scheduled_runs=schedule.max_scheduled_runs,
                    parameters=schedule.parameters,
                    slug=schedule.slug,
                )
                for schedule in there.schedules
                if schedule.slug != NIGHTLY
            ]
            entry.schedules = [*(entry.schedules or []), *others]


def zombie_automation() -> AutomationCore:
    """Calls a run crashed that has sent no heartbeat for two minutes.

    A run whose machine lost power would stay "running", and hold its place in the queue.
    """
    return _crash_automation(
        "thyro: runs that died without a word",
        "Marks a run as crashed when its heartbeat stops. Start it again.",
        after={_HEARTBEAT},
        expect={_HEARTBEAT, *_events(_OVER)},
        seconds=_MISSED_BEATS * HEARTBEAT_SECONDS,
        message="No sign of life for two minutes: its process or machine died. What is "
        "finished is kept; start it again and it goes on.",
    )


def unbegun_automation() -> AutomationCore:
    """Calls a run crashed that had its turn and did not begin.

    A run without a heartbeat yet, whose process died as it started, would stay "pending",
    and hold its place in the queue.
    """
    return _crash_automation(
        "thyro: runs that did not begin",
        "Marks a run as crashed that had its turn and did not begin. Start it again.",
        after=_events(_BEGINNING),
        # One that is put off again waits for another turn.
        expect=_events((*_OVER, "Running", "Cancelling", "Scheduled", "AwaitingConcurrencySlot")),
        seconds=_BEGIN_SECONDS,
        message=f"It did not begin within {_BEGIN_SECONDS // 60} minutes: its process or machine "
        "died, or there is no room for it. Look at its worker, and start it again.",
    )


def _events(states: Iterable[str]) -> set[str]:
    return {f"prefect.flow-run.{name}" for name in states}


def _crash_automation(
    name: str, description: str, *, after: set[str], expect: set[str], seconds: int, message: str
) -> AutomationCore:
    """Calls each of our runs crashed for which nothing that is expected happens in time."""
    return AutomationCore(
        name=name,
        description=description,
        trigger=EventTrigger(
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification(
                {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}
            ),
            for_each={"prefect.resource.id"},
            after=after,
            expect=expect,
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=seconds),
        ),
        actions=[ChangeFlowRunState(name="Crashed", state=StateType.CRASHED, message=message)],
    )


async def ensure_automations() -> None:
    """Create the automations on the server, or bring those that are there up to date."""
    async with get_client() as client:
        for automation in (zombie_automation(), unbegun_automation()):
            namesakes = await client.read_automations_by_name(automation.name)
            if namesakes:
                await client.update_automation(namesakes[0].id, automation)
            else:
                await client.create_automation(automation)
