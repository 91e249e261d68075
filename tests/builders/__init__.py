"""What tests are made of: cells, facts, evidence, guests, runs, reports."""
