"""From a run to labels and scores. Nothing is imported here: a trained model does not need DALI."""
