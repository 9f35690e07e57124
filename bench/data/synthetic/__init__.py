"""Drawn people: COCO-layout data with exact truth about every keypoint, seen, hidden or outside of the image."""
