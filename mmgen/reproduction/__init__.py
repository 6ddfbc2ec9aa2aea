"""The paper's experiments from training to table and figures: ``mmgen reproduce``."""
