"""Where in the image the elements of a tensor lie, and how a layer is laid out as a feature map."""
