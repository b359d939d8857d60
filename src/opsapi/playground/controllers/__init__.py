"""The control loops, small but faithful: each watches the registry and moves the world toward what is declared."""
