"""What `thyro serve` runs: the deployments, their server and their runner."""
