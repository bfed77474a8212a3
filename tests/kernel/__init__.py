"""Tests that load what was compiled into a kernel and send packets through it."""
