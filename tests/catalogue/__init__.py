"""The catalogue: its services against lists that others keep, its groups against the registries."""
