"""`make bench-service`: the service beside a raw relay and LiteLLM's proxy, as ratios within one run."""
