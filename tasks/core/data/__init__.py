"""Drawing of images and prompts; questions made from boxes."""
