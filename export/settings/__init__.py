"""What the JSON files of a checkpoint may say."""
