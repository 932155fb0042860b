"""Translation pairs from two monolingual sides: fold, encode, neighbours, margin, extract, write."""
