"""The intermediate representation: what is executed, on which stage and path, and why."""
