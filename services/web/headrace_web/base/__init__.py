"""What all of the service stands on: settings, records, ids."""
