"""What browsers call: the files of the page, and its API."""
