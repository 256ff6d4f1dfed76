"""The search for losses: formulas that are bred, sieved, trained as ordinary runs, chosen and tested."""
