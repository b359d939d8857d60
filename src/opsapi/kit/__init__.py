"""What every layer may use: declarations, identifiers, time, quantities and errors. Imports nothing of the product."""
