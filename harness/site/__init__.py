"""The static site of all published evidence: a page per loss, per task and per study, the ledger and the catalogue."""
