"""People and what is learnt from them: annotations, subsets, crops, targets."""
