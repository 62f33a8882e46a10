"""Safe decoding of untrusted audio files: formats, limits, a child process and its errors."""
