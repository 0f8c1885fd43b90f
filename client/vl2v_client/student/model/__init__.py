"""The network and its classifier, the input it takes, and the card that describes it."""
