"""The gateway's view of lanes and workers: admission, queue positions, settling."""
