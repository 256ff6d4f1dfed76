"""The parts of the report, one small module each: a function ``section(analysis) -> Section``."""
