"""Files of each format as releases wrote them, which every later release reads; `write` makes this lab's."""
