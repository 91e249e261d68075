"""The kinds of build, one class in each module; `--build KIND:...` names a kind by its module."""
