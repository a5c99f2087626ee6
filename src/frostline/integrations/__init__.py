"""One third party a file; each is imported only when the user imports it."""
