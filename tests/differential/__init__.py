"""Random policies against the kernel: what it lets through must be what LANGUAGE.md says."""
