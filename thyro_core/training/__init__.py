"""Fine-tuning and running the networks with torch."""
