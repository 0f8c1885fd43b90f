"""The model at work: the queue before it, the process that it runs in, and the models themselves."""
