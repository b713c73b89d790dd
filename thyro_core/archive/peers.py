"""Who may connect to the listener: application entities by their host, network and title."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from thyro_core.errors import InputError

_LONGEST_TITLE = 16


@dataclass(frozen=True)
class Peer:
    """An application entity, or several.

    Attributes:
        network: where it connects from; a host is a network of one address.
        ae_title: what it calls itself; empty: whatever it likes.
    """

    network: ipaddress.IPv4Network | ipaddress.IPv6Network
    ae_title: str = ""


LOOPBACK = (Peer(ipaddress.ip_network("127.0.0.0/8")), Peer(ipaddress.ip_network("::1/128")))
"""This machine."""


def parse_peer(text: str) -> Peer:
    """A peer as people write it: `10.0.0.7`, `10.0.0.0/24`, `SCANNER@10.0.0.7`.

    Raises:
        InputError: it is none of these.
    """
    title, at, place = text.rpartition("@")
    is_title = 0 < len(title.strip()) <= _LONGEST_TITLE if at else True
    try:
        network = ipaddress.ip_network(place.strip())
    except ValueError:
        network = None
    if network is None or not is_title:
        msg = (
            f"peer {text!r}: expected an address or a network, with the AE title before an @ if it "
            "is to be checked, such as SCANNER@10.0.0.7 or 10.0.0.0/24"
        )
        raise InputError(msg)
    return Peer(network, title.strip())


def may_connect(peers: Sequence[Peer], address: str, ae_title: str | None = None) -> bool:
    """Whether some peer has this address, and this title where one is known and required.

    Args:
        peers: who may connect.
        address: IP address of the connection.
        ae_title: title of the other side; None: not known yet.
    """
    # An IPv4 host reaches an IPv6 socket under a mapped address.
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(
        ip in peer.network and (ae_title is None or peer.ae_title in {"", ae_title.strip()})
        for peer in peers
    )
