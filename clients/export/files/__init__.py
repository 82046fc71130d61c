"""Reading and writing the files of each export format. Importing these takes seconds: torch, ONNX, PEFT."""
