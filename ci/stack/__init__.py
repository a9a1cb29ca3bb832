"""The compose wrapper: from images to a running, watched system."""
