"""The tests of policylang."""
