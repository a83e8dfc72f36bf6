"""Tables of networks: sizes and costs, and how the AlexNets differ."""
