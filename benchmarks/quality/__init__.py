"""How exact each format is: cosines to float32, and scores on evaluation sets."""
