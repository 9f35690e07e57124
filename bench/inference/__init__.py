"""From a model and persons to predictions, scores and COCO results."""
