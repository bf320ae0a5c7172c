"""Paths: the nodes from one that is followed to the leader. A path that leads back to the asker is a loop. Pure.

path, loop = cut(welcome.path, node_id)        `loop` says which nodes follow each other, "" without a loop
lengthened(us, path)                           what we tell our own followers
"""

from __future__ import annotations

from collections.abc import Sequence

from server import bounds
from server.replication.messages import NodeRef

Nodes = tuple[NodeRef, ...]


def cut(path: Nodes, node_id: str) -> tuple[Nodes, str]:
    """Cut a path where it leads to the node of this id, and say so."""
    ids = [node.id for node in path]
    if not node_id or node_id not in ids:
        return path, ""
    path = path[: ids.index(node_id)]
    if not path:
        return path, "this node follows itself, so there is no leader"
    names = [node.name or node.id for node in path]
    follows = ", which follows ".join([*names, "this node"])
    return path, f"replicas follow each other in a loop, without a leader: this node follows {follows}"


def lengthened(node: NodeRef, path: Sequence[NodeRef]) -> Nodes:
    """Put a node before a path, which has a bound."""
    return (node, *path)[: bounds.PATH_NODES_MAX]
