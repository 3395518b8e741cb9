"""What ``exactile info`` says of an image: series, levels, channels, options."""
