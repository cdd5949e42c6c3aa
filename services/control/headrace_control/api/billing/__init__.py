"""PriceService and StatementService."""
