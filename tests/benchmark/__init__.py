"""What policylang costs: a compile, and a packet. `make bench` runs it; no test does."""
