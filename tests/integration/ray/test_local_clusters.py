"""Clusters that `ray start` made on this machine: found, told apart, and joined with a token."""

from collections.abc import Iterator

import pytest

from tests.support.ray_heads import User, ray_head, user
from thyro_core.cluster.local_clusters import local_clusters

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def owner() -> Iterator[User]:
    with user("a" * 64) as one:
        yield one


@pytest.fixture(scope="module")
def head(owner: User) -> Iterator[str]:
    """A cluster that asks for its owner's token, which lies in the home."""
    with ray_head(owner, RAY_AUTH_MODE="token") as address:
        yield address


@pytest.fixture(scope="module")
def open_head() -> Iterator[str]:
    """A cluster that asks for no token."""
    with user(None) as nobody, ray_head(nobody, RAY_AUTH_MODE="disabled") as address:
        yield address


def test_the_owner_joins_without_a_word_about_tokens(owner: User, head: str) -> None:
    done = owner.join(head)
    assert done.stdout == "joined 1.0\n", done.stderr
    assert "InvalidAuthToken" not in done.stderr


@pytest.mark.parametrize("token", [None, "b" * 64])
def test_anyone_else_is_told_in_one_sentence(head: str, token: str | None) -> None:
    with user(token) as stranger:
        done = stranger.join(head)
    assert done.stdout.startswith(f"Ray at {head}: expected a cluster that lets this program in")
    assert done.stdout.count("\n") == 1
    assert "InvalidAuthToken" not in done.stderr


def test_a_cluster_without_a_token_is_joined_by_who_has_one_and_who_has_none(
    owner: User, open_head: str
) -> None:
    with user(None) as nobody:
        for each in (owner, nobody):
            done = each.join(open_head)
            assert done.stdout == "joined 1.0\n", done.stderr


def test_of_two_clusters_none_is_taken_and_both_are_named(
    owner: User, head: str, open_head: str
) -> None:
    # Ray knows a node of loopback by this machine's own address.
    ports = {address.rpartition(":")[2] for address in (head, open_head)}
    assert ports <= {address.rpartition(":")[2] for address in local_clusters()}
    for more in ({}, {"RAY_ADDRESS": "auto"}):
        done = owner.join("auto", **more)
        assert done.stdout.startswith("Ray at auto: expected one cluster on this machine, found ")
        assert all(f":{port}" in done.stdout for port in ports)
        assert "--ray host:port" in done.stdout
    done = owner.join("auto", RAY_ADDRESS=head)
    assert done.stdout == "joined 1.0\n", done.stderr
