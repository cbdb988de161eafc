"""Own-model forced alignment: recordings and the words that were said to phones and words with times."""
