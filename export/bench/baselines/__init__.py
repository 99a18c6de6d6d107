"""What a user would run instead: naive exports of the same model, and a Llama of equal depth."""
