"""A compiler from firewall policies to nftables and iptables; this file knows its version."""

__version__ = "0.1.0"
