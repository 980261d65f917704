"""What this CPU can run."""

compiler: str

def supports(variant: str) -> bool:
    """Return whether this CPU and operating system can run `variant`."""
