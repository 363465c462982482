"""Runs packets through compiled flows as Open vSwitch would, with the conntrack of either datapath, over bridges.

Pure: a simulated `Switch` has state (conntrack, held fragments) but does no I/O. Tests compare it with Open vSwitch.
"""
