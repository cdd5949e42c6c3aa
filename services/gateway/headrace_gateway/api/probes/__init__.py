"""What is requested before generation: health, version, the OpenAPI document."""
