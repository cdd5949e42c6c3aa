"""WebhookService of the API."""
