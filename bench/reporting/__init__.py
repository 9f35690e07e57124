"""From rows and predictions to tables, figures and pictures; never a model."""
