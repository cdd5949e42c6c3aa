"""One module for each way in which families of models write calls, reasoning, or both."""
