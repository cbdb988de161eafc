"""Exporting a run: its model as an ONNX file, and a model card beside it."""
