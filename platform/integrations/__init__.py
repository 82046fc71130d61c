"""Figures of runs for TensorBoard, MLflow and Prometheus."""
