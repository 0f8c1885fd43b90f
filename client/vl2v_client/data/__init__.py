"""Data sets on disk: folders of domains, their splits, the views of their images and the pixels of those views."""
