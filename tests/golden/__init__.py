"""Policies, a folder each, and what they compile to."""
