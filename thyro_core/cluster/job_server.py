"""The job server of a Ray cluster, by its documented REST interface: no Ray node runs here."""

import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import requests

from thyro_core.errors import InputError, ThyroError
from thyro_core.store.retry import RetriesExhaustedError, RetryPolicy

Answer = TypeVar("Answer")

SERVER_LOST_SECONDS = 60.0
"""A head that has not answered for so long counts as lost [s]."""

_REQUEST_SECONDS = (10.0, 60.0)  # to connect, to answer [s]: a busy head is slow
_FIRST_PAUSE = 0.5
# Ray's client for logs prefers these to any address that it is given.
_ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_UNAUTHORIZED_CODES = (401, 403)
_NOT_FOUND = 404
_SERVER_ERROR = 500


class _RefusedError(Exception):
    """The server's answer is an error."""

    def __init__(self, response: requests.Response) -> None:
        super().__init__(f"HTTP {response.status_code}: {response.text.strip()[-500:]}")
        self.status = response.status_code
        self.text = response.text


@dataclass(frozen=True)
class JobState:
    """Where a submitted job stands; `status` is Ray's word for it."""

    id: str
    status: str
    message: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether it will never run again."""
        return self.status in {"STOPPED", "SUCCEEDED", "FAILED"}


class JobServer:
    """Submits, watches and stops jobs; a head that is away for a while is waited for."""

    def __init__(self, address: str, headers: Mapping[str, str]) -> None:
        self.address = address
        self._headers = headers
        self._policy = RetryPolicy(
            SERVER_LOST_SECONDS, first_wait=_FIRST_PAUSE, retry_on=_is_transient
        )

    def version(self) -> str:
        """Ray's version on the cluster, by one attempt.

        Raises:
            _RefusedError: the answer is an error.
            RequestException: there is no answer, or it is not the one of a job server.
            LookupError: likewise.
            TypeError: likewise.
        """
        return str(self._request("GET", "version")["ray_version"])

    def submit(self, job_id: str, entrypoint: str, metadata: Mapping[str, str]) -> bool:
        """Submit a job under a name of its own; False: there is one of that name.

        It runs on the head and holds no CPU: it only watches others.
        """
        job = {"submission_id": job_id, "entrypoint": entrypoint, "metadata": dict(metadata)}

        def submit() -> bool:
            try:
                self._request("POST", "jobs/", job)
            except _RefusedError as error:
                if "already exists" in error.text:
                    return False
                raise
            return True

        return self._retry(submit)

    def jobs(self) -> list[JobState]:
        """All submitted jobs that the cluster remembers."""
        jobs = self._retry(lambda: self._request("GET", "jobs/"))
        return [_job_state(job) for job in jobs if job.get("submission_id")]

    def state(self, job_id: str) -> JobState:
        """Where a job stands.

        Raises:
            ThyroError: the head does not answer, or has forgotten the job.
        """
        return _job_state(self._retry(lambda: self._request("GET", f"jobs/{job_id}")))

    def log(self, job_id: str) -> str:
        """The whole log of a job so far."""
        return str(self._retry(lambda: self._request("GET", f"jobs/{job_id}/logs"))["logs"])

    async def tail(self, job_id: str) -> AsyncIterator[str]:
        """The parts of a job's log as they come, from its beginning to the job's end."""
        from ray.job_submission import JobSubmissionClient

        async for text in JobSubmissionClient(self.address).tail_job_logs(job_id):
            yield text

    def stop(self, job_id: str) -> None:
        """Request that a job stops; it takes some seconds."""
        self._retry(lambda: self._request("POST", f"jobs/{job_id}/stop"))

    def _request(self, method: str, path: str, body: Any = None) -> Any:  # noqa: ANN401
        response = requests.request(
            method,
            f"{self.address}/api/{path}",
            json=body,
            headers=self._headers,
            timeout=_REQUEST_SECONDS,
        )
        if not response.ok:
            raise _RefusedError(response)
        return response.json()

    def _retry(self, request: Callable[[], Answer]) -> Answer:
        try:
            return self._policy.call(request, f"Ray's head at {self.address}")
        except RetriesExhaustedError as attempts_end:
            error = attempts_end.error
            msg = (
                f"Ray's head at {self.address} has not answered for {SERVER_LOST_SECONDS:g} s "
                f"({_reason(error)}); what is finished is kept: when it answers again, the same "
                "command goes on, with the job that runs there if it still does"
            )
            raise ThyroError(msg) from error
        except _RefusedError as error:
            if error.status in _UNAUTHORIZED_CODES:
                raise _wrong_token(self.address, error) from error
            if error.status == _NOT_FOUND:
                msg = (
                    f"Ray at {self.address} does not know the job any more: the cluster was "
                    "started anew, or somebody deleted the job; what is finished is kept, and the "
                    "same command goes on"
                )
                raise ThyroError(msg) from error
            msg = f"Ray at {self.address} refused: {error}"
            raise ThyroError(msg) from error


def _is_transient(error: Exception) -> bool:
    if isinstance(error, _RefusedError):
        return error.status >= _SERVER_ERROR
    # All that `requests` raises for a connection is an OSError.
    return isinstance(error, OSError)


def connect_job_server(address: str) -> JobServer:
    """The job server of the dashboard at an address such as http://head:8265.

    Raises:
        InputError: nobody answers there, it is no dashboard of Ray, or it refuses this process.
    """
    address = address.rstrip("/")
    for name in _ADDRESS_VARIABLES:
        if os.environ.get(name, address).rstrip("/") != address:
            msg = (
                f"Ray at {address}: {name} is set, and sends all jobs to another place "
                f"({os.environ[name]}); unset it"
            )
            raise InputError(msg)
    server = JobServer(address, _token_header(address))
    try:
        server.version()
    except (requests.ConnectionError, requests.Timeout) as error:
        msg = (
            f"Ray at {address}: expected the dashboard of a cluster, found that nobody answers "
            f"({_reason(error)}); start one with `ray start --head --include-dashboard=true`, open "
            "a tunnel to the one you have, or leave --ray out to run on this machine"
        )
        raise InputError(msg) from error
    except (_RefusedError, LookupError, TypeError, requests.RequestException) as error:
        if isinstance(error, _RefusedError) and error.status in _UNAUTHORIZED_CODES:
            raise _wrong_token(address, error) from error
        msg = (
            f"Ray at {address}: expected Ray's dashboard with its job server, found something else "
            f"({_reason(error)}); the address is that of the head's dashboard (port 8265 by "
            'default), and the head needs Ray with its dashboard: pip install "ray[default]"'
        )
        raise InputError(msg) from error
    return server


def _token_header(address: str) -> dict[str, str]:
    """The cluster's token, from the places and in the order that Ray documents."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    if not token:
        path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
        try:
            token = path.read_text()
        except OSError as error:
            raise _wrong_token(address, error) from error
    return {"Authorization": f"Bearer {token.strip()}"}


def _job_state(job: Mapping[str, Any]) -> JobState:
    return JobState(
        job["submission_id"], job["status"], job.get("message") or "", job.get("metadata") or {}
    )


def _wrong_token(address: str, error: Exception) -> InputError:
    return InputError(
        f"Ray at {address}: expected RAY_AUTH_MODE=token and the cluster's token in "
        f"RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH), found: {_reason(error)}"
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
