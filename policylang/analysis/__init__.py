"""Exact answers over all packets: what rules do, wherever they come from."""
