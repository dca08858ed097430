"""A stretch of days lived one after the other as production would have, what was recorded of it, and what it was worth."""
