"""ResNet and Res2Net."""
