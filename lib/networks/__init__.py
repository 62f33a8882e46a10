"""What the networks stand on: YAMNet in Keras, exported networks on ONNX Runtime, features."""
