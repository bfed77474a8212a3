"""Loads an artifact into the kernel, whole or not at all; knows no policy and compiles nothing."""
