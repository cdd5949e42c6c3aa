"""Commands about money: what tokens cost, and what a tenant owes for them."""
