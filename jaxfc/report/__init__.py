"""Commands as functions, figures, tables and the HTML report."""
