"""Sets of packets: ranges of integers, cubes and unions of cubes; knows no policy."""
