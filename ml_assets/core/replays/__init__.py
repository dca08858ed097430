"""Days lived one after the other as production would have, what is recorded of them, and what it was worth."""
