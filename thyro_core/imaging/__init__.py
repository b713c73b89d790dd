"""From the bytes of an image file to grey pixels and what can be measured on them."""
