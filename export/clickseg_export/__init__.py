"""From a training checkpoint to one self-describing model file: the bridge between both sides."""
