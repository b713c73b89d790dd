"""The job server of a Ray cluster, over HTTP: no Ray node is needed where this runs."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from thyro_core.errors import InputError, ThyroError

R = TypeVar("R")

LOST_SECONDS = 60.0
"""A head that has not answered for so long counts as lost [s]."""

_TIMEOUT = (10.0, 60.0)  # to connect, to answer [s]: a busy head takes its time
_LONGEST_PAUSE = 8.0
# These stand above any address that Ray's client is given.
_OVERRIDES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


class _RefusedError(Exception):
    """The server answered, and said no."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text.strip()[-500:]}")
        self.status = status
        self.text = text


class _Client(JobSubmissionClient):
    """Ray's client, with a limit to its waiting and a status to its errors."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> requests.Response:  # noqa: ANN401
        answer: requests.Response = super()._do_request(
            method, endpoint, timeout=_TIMEOUT, **options
        )
        return answer

    def _raise_error(self, r: requests.Response) -> NoReturn:
        raise _RefusedError(r.status_code, r.text)


@dataclass(frozen=True)
class JobState:
    """Where a submitted job stands; `status` is Ray's word for it."""

    id: str
    status: str
    message: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether it will never run again."""
        return self.status in {"STOPPED", "SUCCEEDED", "FAILED"}


class JobServer:
    """Submits, watches and stops jobs; a head that is away for a while is waited for."""

    def __init__(self, address: str, client: Any) -> None:  # noqa: ANN401
        self.address = address
        self._client = client

    def submit(self, job_id: str, entrypoint: str, metadata: Mapping[str, str]) -> bool:
        """Submit a job under a name of its own; False: there is one of that name.

        It runs on the head and holds no CPU: it only watches others.
        """

        def submit() -> bool:
            try:
                self._client.submit_job(
                    entrypoint=entrypoint, submission_id=job_id, metadata=dict(metadata)
                )
            except _RefusedError as error:
                if "already exists" in error.text:
                    return False
                raise
            return True

        return self._patiently(submit)

    def jobs(self) -> list[JobState]:
        """All submitted jobs that the cluster remembers."""
        found = self._patiently(self._client.list_jobs)
        return [_state(job) for job in found if job.submission_id]

    def state(self, job_id: str) -> JobState:
        """Where a job stands.

        Raises:
            ThyroError: the head does not answer, or has forgotten the job.
        """
        return _state(self._patiently(lambda: self._client.get_job_info(job_id)))

    def log(self, job_id: str) -> str:
        """All that a job has said so far."""
        log: str = self._patiently(lambda: self._client.get_job_logs(job_id))
        return log

    def stop(self, job_id: str) -> None:
        """Ask a job to stop; it takes some seconds."""
        self._patiently(lambda: self._client.stop_job(job_id))

    def _patiently(self, ask: Callable[[], R]) -> R:
        deadline = time.monotonic() + LOST_SECONDS
        pause = 0.5
        while True:
            try:
                return ask()
            except AuthenticationError as error:
                raise _wrong_token(self.address, error) from error
            except (OSError, _RefusedError) as error:
                if isinstance(error, _RefusedError) and error.status < 500:
                    raise self._refused(error) from error
                if time.monotonic() + pause > deadline:
                    raise self._lost(error) from error
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _refused(self, error: _RefusedError) -> ThyroError:
        if error.status == 404:
            return ThyroError(
                f"Ray at {self.address} does not know the job any more: the cluster was started "
                "anew, or somebody deleted the job; what is finished is kept, and the same "
                "command goes on"
            )
        return ThyroError(f"Ray at {self.address} refused: {error}")

    def _lost(self, error: Exception) -> ThyroError:
        return ThyroError(
            f"Ray's head at {self.address} has not answered for {LOST_SECONDS:g} s "
            f"({_reason(error)}); what is finished is kept: when it answers again, the same "
            "command goes on, with the job that runs there if it still does"
        )


def connect(address: str) -> JobServer:
    """The job server of the dashboard at an address such as http://head:8265.

    With RAY_AUTH_MODE=token, Ray's client sends the token that it finds (RAY_AUTH_TOKEN, say).

    Raises:
        InputError: nobody answers there, it is no dashboard of Ray, or it does not let us in.
    """
    address = address.rstrip("/")
    for name in _OVERRIDES:
        if os.environ.get(name, address).rstrip("/") != address:
            msg = (
                f"Ray at {address}: {name} is set, and sends all jobs to another place "
                f"({os.environ[name]}); unset it"
            )
            raise InputError(msg)
    try:
        return JobServer(address, _Client(address))
    except AuthenticationError as error:
        raise _wrong_token(address, error) from error
    except (ConnectionError, requests.ConnectionError, requests.Timeout) as error:
        msg = (
            f"Ray at {address}: expected the dashboard of a cluster, found that nobody answers "
            f"({_reason(error)}); start one with `ray start --head --include-dashboard=true`, open "
            "a tunnel to the one you have, or leave --ray out to run on this machine"
        )
        raise InputError(msg) from error
    except (RuntimeError, KeyError, TypeError, ValueError, requests.RequestException) as error:
        msg = (
            f"Ray at {address}: expected Ray's dashboard with its job server, found something else "
            f"({_reason(error)}); the address is that of the head's dashboard (port 8265 by "
            'default), and the head needs Ray with its dashboard: pip install "ray[default]"'
        )
        raise InputError(msg) from error


def _state(job: Any) -> JobState:  # noqa: ANN401
    status = str(getattr(job.status, "value", job.status))
    return JobState(job.submission_id, status, job.message or "", job.metadata or {})


def _wrong_token(address: str, error: Exception) -> InputError:
    return InputError(
        f"Ray at {address}: expected RAY_AUTH_MODE=token and the cluster's token in "
        f"RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH), found: {_reason(error)}"
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
