"""Every pass leaves the fate of every packet as it was."""
