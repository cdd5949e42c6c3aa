"""What a request is: its data classes, and rules that need nothing else."""
