"""What updates cost, and the bias and variance of estimators on small models."""
