"""What calls answer with, as the OpenAPI document describes it; tests hold real answers to it."""
