"""What all commands share: options, connections and output."""
