"""The science: pure, free of orchestration, database and store."""
