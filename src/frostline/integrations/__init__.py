"""One third party per file; each is imported only by whom asks for it."""
