"""What is done to the cluster, one thing at a time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

from .cluster import Cluster, Node

# Each is done to the leader of some partition; the caller waits until the cluster is whole again.


def kill(cluster: Cluster, node: Node, choices: random.Random) -> str:
    """`kill -9`, and a new start."""
    node.kill()
    away_s = choices.uniform(0.2, 3.0)
    time.sleep(away_s)
    node.start()
    return f"node {node.number} killed, started again after {away_s:.1f} s"


def hold(cluster: Cluster, node: Node, choices: random.Random) -> str:
    """SIGSTOP, so that it is thought dead and knows nothing of it."""
    held_s = choices.uniform(6.0, 10.0)
    node.hold(held_s)
    return f"node {node.number} held for {held_s:.1f} s"


def restart(cluster: Cluster, node: Node, choices: random.Random) -> str:
    """An orderly end and a new start."""
    node.end()
    node.start()
    return f"node {node.number} restarted in order"


def roll(cluster: Cluster, node: Node, choices: random.Random) -> str:
    """All restarted in order, one by one, from this one on."""
    first = node.number - 1
    for each in cluster.nodes[first:] + cluster.nodes[:first]:
        each.end()
        each.start()
        cluster.heal()
    return f"all restarted in order, one by one, from node {node.number} on"


def kill_all(cluster: Cluster, node: Node, choices: random.Random) -> str:
    """`kill -9` of all at once, and a new start."""
    cluster.kill()
    away_s = choices.uniform(0.2, 2.0)
    time.sleep(away_s)
    cluster.start()
    return f"all killed at once, started again after {away_s:.1f} s"


Fault = Callable[[Cluster, Node, random.Random], str]
ALL: list[Fault] = [kill, hold, restart, roll, kill_all]


def rounds(choices: random.Random, until: float) -> Iterator[Fault]:
    """All of them in an order of chance, again and again; the first time in any case, then until the time is over."""
    first = True
    while first or time.monotonic() < until:
        for fault in choices.sample(ALL, len(ALL)):
            if first or time.monotonic() < until:
                yield fault
        first = False
