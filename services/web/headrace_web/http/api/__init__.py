"""The API of the page: /ui/api."""
