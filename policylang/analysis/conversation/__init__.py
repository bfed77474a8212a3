"""Whole conversations through a machine, packet by packet, and what conntrack makes of them."""
