"""Pages, figures and tables for people. Reads tables; changes no result."""
