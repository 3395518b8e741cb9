"""PNG, JPEG, BMP, WebP, JPEG 2000 and JPEG XL: decoded whole."""
