"""The run directory and adapter folders: all that training and analysis share."""
