"""How good a classifier is: accuracy by domain, calibration, the teacher beside it, and predictions for use."""
