"""How the ranks of a learner find each other: one address, and a process group on it.

The store's socket is opened by rank 0 before its address is told, and handed over still
open, so that no other process can take the port in between.
"""

import ipaddress
import os
import socket
from datetime import timedelta

import psutil
import torch.distributed as dist


def own_address(world_size: int, known: str | None = None) -> str:
    """Return the address at which other ranks reach this one; loopback for a lone rank.

    The environment variable ``MASTER_ADDR``, torch's own, decides where it is set: loopback
    keeps the ranks of one machine to themselves. Then the address by which the cluster has
    ``known`` this machine decides, then its host name.
    """
    if address := os.environ.get("MASTER_ADDR"):
        return address
    if world_size > 1:
        if known:
            return known
        try:
            address = socket.gethostbyname(socket.gethostname())
            with socket.socket() as probe:
                probe.bind((address, 0))
            return address
        except OSError:  # a host name that does not resolve, or to an interface that is down
            pass
    return "127.0.0.1"


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with listen("") as listener:
        return listener.getsockname()[1]


def listen(address: str) -> socket.socket:
    """Open a listening socket on any free port of ``address``."""
    listener = socket.socket()
    listener.bind((address, 0))
    listener.listen()
    return listener


def join(
    address: str,
    port: int,
    *,
    rank: int,
    world_size: int,
    backend: str,
    listener: socket.socket | None = None,
    own: str | None = None,
    timeout: timedelta = timedelta(minutes=10),
) -> None:
    """Start torch.distributed (collective). Rank 0 gives the ``listener`` it announced.

    Ranks that meet on loopback keep their own connections on it too; others have them on the
    interface of their ``own`` address. Gloo alone would take that of the host name, which may be
    loopback, or none.
    """
    if world_size == 1 and dist.is_initialized():
        return  # in the local runner a vLLM engine of this process was quicker; one rank is one
    if ipaddress.ip_address(socket.gethostbyname(address)).is_loopback:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    elif own and (interface := interface_of(own)):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    store = dist.TCPStore(
        address,
        port,
        world_size,
        is_master=rank == 0,
        timeout=timeout,
        master_listen_fd=None if listener is None else listener.detach(),
        use_libuv=True,
    )
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)


def interface_of(address: str) -> str | None:
    """Return the name of this machine's interface that has ``address``; None: none has it."""
    every = psutil.net_if_addrs().items()
    return next((name for name, each in every if any(a.address == address for a in each)), None)
