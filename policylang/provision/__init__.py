"""Brings what was compiled on one machine into force on another, which has no policylang."""
