"""Items that wait for the model, gathered into batches; fair between API keys."""
