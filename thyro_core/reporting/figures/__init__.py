"""The report's figures as inline SVG."""
