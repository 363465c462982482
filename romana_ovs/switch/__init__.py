"""EDGE OUT: OpenFlow wire and channel (Ryu), ports from OVSDB (ovs)."""
