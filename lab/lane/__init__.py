"""One lane: from an image to a guest in which cells run."""
