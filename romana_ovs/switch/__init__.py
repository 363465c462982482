"""Talks to Open vSwitch: OpenFlow 1.5 (by Ryu's connections), OVSDB, and the control socket of ovs-vswitchd."""
