"""FullGrad: what the score owes to the image and to each bias of the network, as outputs."""
