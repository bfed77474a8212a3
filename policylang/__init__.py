"""policylang compiles a firewall policy into nftables or iptables rules; this file knows its version."""

__version__ = "0.1.0"
