"""Contains the paragraphs of docs/pipeline.md that are not rendered from declarations."""

from __future__ import annotations

INTRODUCTION = """\
# The pipeline

Rendered from the declarations in `romana_ovs/pipeline/` (`tables.py`, `registers.py`, `priorities.py`,
`cookies.py`) and from the demonstration's own compiled tables. Do not edit: `make docs` writes it, and the
tests fail when it is stale.

After `#` a flow shows by name which parts of registers it matches and writes. A table lists the parts of registers that
flows of the demonstration use there.

A packet enters the first table and goes forward. One that matches no flow is dropped; no flow has a NORMAL action, and
nothing is sent to the controller. The words are those of the [glossary](glossary.md).
"""


CHANGED_CLIENTS = """\
## Clients whose identity changed

The server's node decides replies by the identity that the client had when it last sent. A client that was relabelled,
or that got a new class, may never send again. So the client's node compares, in table ClientServer, the identity in its
conntrack entry with the client's present one. If they differ:

- A datagram (UDP, and every protocol without ports except ICMP) is not delivered. It goes back as a *revalidation
  packet*: with source and destination swapped, as an original of the client with its present identity, through the
  tables of both nodes. Both commit that identity, and no pod receives the packet. If the connection is still allowed,
  it goes on after the first datagram (a faster sender loses those under way within a round trip between the nodes).
  Other nodes get no flow-mods, and nothing goes to the controller.
- TCP and SCTP are delivered: the client acknowledges, and with that the server's node decides, within a round trip.
- An ICMP echo reply is dropped; the client's next request is decided.

If the server's node denies a TCP or UDP reply, it returns it to the client's node as a revalidation packet (direction
*reply*), because it may have decided by an old identity. If the client's identity has changed, that node revalidates
the connection as above; otherwise it drops the packet.

A revalidation packet that the server's node denies clears no mark, unlike a packet of the client itself: this node may
learn the client's new class only in a moment. The entry gets the new identity, by which the replies are denied.

While classes are split, between the step in which pods take their new numbers and the step in which rules that
distinguish them from the old ones come into force, a reply decided by the old number is right. It is delivered and
revalidated at once, so that a server that goes on sending loses nothing.

The client's next packet still decides about fragments and SCTP that the server's node denies by an old identity, and
about everything if the revalidation packet itself is lost between the nodes.
"""

PICKUP = """\
## Connections lost with a restart of Open vSwitch

Open vSwitch's userspace datapath loses its conntrack entries when it is restarted; the kernel's keeps them. Afterwards
a packet passes only if policy admits it now, at both ends. UDP, SCTP and ICMP continue with the next packet of the
client. TCP without SYN is picked up between ends that were attached before the loss (*pre-restart*), in whichever
direction policy admits, for 2 h 15 min after it:

- On one node, and between a pod and outside: if policy admits the segment as its client's, which commits an entry;
  else if policy admits it as a reply, which commits none.
- Between nodes the segment is marked *midstream*. The other node decides it as a client's if it lost its entries
  too. If that is denied, or an entry says that it is a reply, it goes back to the sender's node as a *revalidation
  packet*, with its ends swapped. That node decides it as its client's and returns it as a *revalidated* reply, which
  the client's node decides and delivers.
- An entry committed from a midstream packet is *loose*: which end is the client is a guess, until the other node's
  entry confirms or reverses it. If policy admits both directions, a server that sends first may be taken for the
  client for good: then the connection ends with the permission of that direction.

The database notes which ports were attached before (`external_ids:romana-programmed` of an Interface, and
`romana-connections-lost` of the Bridge). So a restart of the controller at the same time makes no difference, an
ordinary start has no pre-restart ports, and a new pod gets nothing that was meant for the previous pod with its
address.
"""

ICMP_ERRORS = """## ICMP errors

An error is decided like a packet of the connection that it quotes, in its direction, by the connection's own addresses
and ports, on both nodes, each its part. It has to come from an end of the connection, or from where a router on its
path would send it: from outside for connections with outside, or from the node itself for all of its pods. Between
nodes both must agree which end is the client. An entry of one node alone, because the other denied the packet, passes
nothing.
"""
