"""What the networks stand on: YAMNet's backbone in Keras, exported networks on ONNX Runtime, cached features."""
