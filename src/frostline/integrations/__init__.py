"""One third party per file; nothing here is imported until a user asks for it."""
