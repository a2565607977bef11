"""What runs the product: the demo, and examples of configuration."""
