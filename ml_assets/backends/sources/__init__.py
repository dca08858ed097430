"""Where raw tables come from: one file per source, each fulfilling the Source port."""
