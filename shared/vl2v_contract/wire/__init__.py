"""The messages: pydantic models of every request, response and error."""
