"""Commands about control's database: its schema, its integrity, backups."""
